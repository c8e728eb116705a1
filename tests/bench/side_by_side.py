"""Another build of prunec beside this one: seconds of the processor and peak memory, in turn.

    git worktree add /tmp/before COMMIT
    python tests/bench/side_by_side.py /tmp/before
    python tests/bench/side_by_side.py /tmp/before --recipe gdp_mbv2 --set train.epochs=1 \
        --other-set pass.0.dense_epochs=0.25 --other-set pass.0.select_epochs=0.25

Both checkouts are installed, without their dependencies, into folders of their own. Each
measurement is a process of its own, the builds take turns, and the medians of ``--rounds`` are
printed with their ratio. Compiled is each network at 224 × 224, batch 2, float32, with 60 % of the
filters of every convolution that one batch norm follows set to zero. With ``--recipe``, each build
trains its own packaged recipe once, with the changes of ``--set`` (``--other-set``: of the other
build alone, whose keys may differ), and exports copies of its run: no build reads another's runs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    "prunec", "passes", "exporters", "recipes",
    "pyproject.toml", ".build", "README.md", "LICENSE",
)  # fmt: skip
ZEROS = 0.6

Figures = Mapping[str, float]


def main() -> None:
    """Install both builds, measure in turn, print medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path, nargs="?", help="the other checkout")
    parser.add_argument("--models", default="resnet50,efficientnet_b4")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recipe", help="train it with each build, and measure its export")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--other-set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        job = json.loads(given.child)
        print(json.dumps(exported(job) if job.get("run") else compiled(job)))
        return
    with tempfile.TemporaryDirectory() as folder:
        builds = [
            installed(path, Path(folder) / str(i)) for i, path in enumerate((given.other, ROOT))
        ]
        jobs: list[tuple[dict[str, Any], ...]] = [
            ({"name": name, "side": given.side},) * 2 for name in given.models.split(",")
        ]
        if given.recipe:
            changes = ((*given.set, *given.other_set), given.set)
            jobs = [tuple(map(trained, builds, (given.recipe,) * 2, changes))]
        print("name: seconds of the processor, other → this (ratio); MiB at most, the same")
        for pair in jobs:
            both: list[list[Figures]] = [[], []]
            for _ in range(given.rounds):
                for build, job, figures in zip(builds, pair, both, strict=True):
                    figures.append(measured(build, job))
            print(line(pair[0]["name"], both), flush=True)


def installed(checkout: Path, folder: Path) -> Path:
    """Install a copy of a checkout, so that it makes no files in there."""
    copy = folder / "copy"
    for name in SOURCES:
        source = checkout / name
        if not source.exists():  # an earlier checkout has none
            continue
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, made(copy / name))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--target", str(folder / "build"), str(copy)], check=True)
    return folder / "build"


def made(path: Path) -> Path:
    """Make the folder that a path lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def trained(build: Path, recipe: str, changes: Sequence[str]) -> dict[str, Any]:
    """Train a packaged recipe with one build; return the job of exporting its run."""
    runs = build.parent / "runs"
    settings = [part for change in changes for part in ("--set", change)]
    by(build, "-m", "prunec", "train", recipe, "--runs", str(runs), *settings)
    return {"name": recipe, "run": str(next(runs.glob("*/run.json")).parent)}


def measured(build: Path, job: Mapping[str, Any]) -> Figures:
    """One measurement by a process that imports one build."""
    figures: Figures = json.loads(by(build, __file__, "--child", json.dumps(job)).splitlines()[-1])
    return figures


def by(build: Path, *arguments: str) -> str:
    """Output of a Python process of its own that imports one build."""
    environment = {**os.environ, "PYTHONPATH": str(build), "OMP_NUM_THREADS": "1"}
    environment["OMP_WAIT_POLICY"] = "PASSIVE"
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=build, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout


def compiled(job: Mapping[str, Any]) -> Figures:
    """Compile a network of torchvision."""
    import torch
    import torchvision
    from torch import nn

    import prunec

    torch.manual_seed(0)
    model = torchvision.models.get_model(job["name"], weights=None).eval()
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                zero = torch.rand(part.num_features) < ZEROS
                part.weight[zero] = 0
                part.bias[zero] = 0
    example = torch.randn(2, 3, job["side"], job["side"])
    began = time.process_time()
    prunec.compile(model, example)
    return figures(time.process_time() - began)


def exported(job: Mapping[str, Any]) -> Figures:
    """Export a copy of a trained run by the command line of the build."""
    from importlib.metadata import entry_points

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "runs" / job["name"]
        shutil.copytree(job["run"], run, ignore=shutil.ignore_patterns("export", "report.html"))
        script = next(iter(entry_points(group="console_scripts", name="prunec")))
        sys.argv = ["prunec", "export", str(run)]
        try:
            script.load()()
        except SystemExit as end:
            if end.code:
                raise
    return figures(time.process_time())


def figures(seconds: float) -> Figures:
    """Seconds of the processor, and the most memory that this process held."""
    return {"seconds": seconds, "MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def line(name: str, both: Sequence[Sequence[Figures]]) -> str:
    """Medians of both builds, and their ratios."""
    cells = []
    for key, form in (("seconds", ".2f"), ("MiB", ".0f")):
        other, this = (statistics.median(f[key] for f in side) for side in both)
        cells.append(f"{other:{form}} → {this:{form}} ({this / other:.2f})")
    return f"{name}: {'; '.join(cells)}"


if __name__ == "__main__":
    main()
