"""Figures that a GPU must reach: recorded steps, methods beside dense, the loop, the main job.

    python tests/bench/gpu_table.py --device cuda --output gpu.md
    python tests/bench/gpu_table.py --device cpu --tiny --output tiny.md

Under ten minutes on an H100. Every row is on file as soon as it is known, with its aim and whether
it was met; the same command goes on where it stopped, and ``--retry`` measures failed rows again.
``--minutes`` ends it between two rows. On the CPU nothing is recorded: ``--tiny`` shows that it
runs, at sizes that say nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from rows import REASON, Cells, Rows, arguments, forget_failures, markdown, measured, serve

HERE = Path(__file__).parent
METHODS = (
    "dense, computed", "mask", "str", "dpf", "dnw", "snfs", "two of four", "st3", "east",
    "east, dyrelu", "gdp selecting", "gdp finishing", "gmp, update", "rigl, update", "set, update",
    "dsr, update", "granet, update", "st3, update",
)  # fmt: skip
STEPS = {"resnet20|fp32": 3.0, "resnet50|fp32": 4.0, "resnet50_224|bf16": 0.0}
"""Network and precision → how many times as fast as computed a recorded dense step is to be."""
AIM, DYRELU, UPDATE, LOOP = 0.95, 0.75, 2.0, 0.98
BEFORE = 100.0  # s: the main job on an H100 before steps were recorded, from command to file
WHOLE, TRAINING = 0.25 * BEFORE, 6.0  # s
TINY_STEPS = {"resnet20|fp32": 3.0}


def main() -> None:
    """Measure what is missing, print the table."""
    parser = arguments(__doc__ or "", 240)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--minutes", type=float, default=0, help="0: to the end")
    parser.add_argument("--tiny", action="store_true", help="small networks, one round")
    given = parser.parse_args()
    if given.child:
        job = json.loads(given.child)
        serve(job, StepRow(job))
        return
    rows = Rows(given.output, table)
    if given.retry:
        forget_failures(rows, list(rows.cells), lambda cells: REASON in cells)
    end = time.monotonic() + 60 * given.minutes if given.minutes else float("inf")
    for key, cells in missing_rows(given, rows):
        rows.add(key, cells)
        print(line(key, cells), flush=True)
        if time.monotonic() > end:
            print("The minutes are over; the same command goes on.")
            break
    print(table(rows.cells))


def missing_rows(given: argparse.Namespace, rows: Rows) -> Iterator[tuple[str, Cells]]:
    """Yield rows that are missing: those of one network by one process."""
    steps = TINY_STEPS if given.tiny else STEPS
    for number, case in enumerate(steps):
        missing = rows.missing(f"{case}|{method}" for method in METHODS)
        job = {"case": case, "device": given.device, "tiny": given.tiny, "rounds": given.rounds}
        yield from measured(__file__, job, missing, given.limit)
        if number == 0 and rows.missing(["main job"]):
            yield "main job", main_job(given)
    if rows.missing(["loop"]):
        yield "loop", loop(given)


class StepRow:
    """In a child: steps of one network, a method at a time beside the dense one."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.job = job
        self.steps: dict[str, Any] = {}
        self.told: list[str] = []

    def __call__(self, key: str) -> Cells:
        """Return the milliseconds of the dense step and of the method's, and the median ratio.

        A recording that was given up meanwhile is told beside them.
        """
        import step_cost
        import torch

        from prunec.training.settings import Settings, computing

        name, precision, method = key.split("|")
        device = torch.device(self.job["device"])
        settings = Settings(precision, True, torch.get_num_threads())
        with computing(settings, device):
            if not self.steps:
                case = step_cost.CASES[name]
                case = replace(case, batch=8, shape=(3, 16, 16)) if self.job["tiny"] else case
                self.steps = step_cost.steps_of(
                    case, settings, device, recorded=True, tell=self.told.append
                )
            self.told.clear()
            rounds = 1 if self.job["tiny"] else self.job["rounds"]
            dense, own = step_cost.beside_dense(self.steps, method, rounds, device)
        gc.collect()
        ratio = step_cost._median([a / b for a, b in zip(dense, own, strict=True)])
        medians = (1000 * step_cost._median(values) for values in (dense, own))
        told = {"told": " ".join(self.told)} if self.told else {}
        return {**dict(zip(("dense", "own"), medians, strict=True)), "ratio": ratio, **told}


def main_job(given: argparse.Namespace) -> Cells:
    """Return the seconds of the default recipe from the command to the file, and of training."""
    with tempfile.TemporaryDirectory() as folder:
        train = ["train", "gdp_mbv2", "--device", given.device]
        train += ["--set", "train.epochs=1"] if given.tiny else []
        began = time.perf_counter()
        for words in (train, ["export", "runs/gdp_mbv2-001"]):
            done = subprocess.run(
                [sys.executable, "-m", "prunec", *words], cwd=folder, capture_output=True, text=True
            )
            # 2: a check fails, as it may after one epoch; the file is there.
            if done.returncode not in (0, 2):
                return {REASON: done.stderr.strip().splitlines()[-1:] or str(done.returncode)}
        whole = time.perf_counter() - began
        metrics = Path(folder, "runs/gdp_mbv2-001/metrics.jsonl").read_text("utf-8").splitlines()
    return {"whole": whole, "training": sum(json.loads(text)["seconds"] for text in metrics)}


def loop(given: argparse.Namespace) -> Cells:
    """Return prunec's images per second by those of a bare loop, as ``loop_cost.py`` has it."""
    words = ["--device", given.device]
    words += (
        ["--side", "16", "--batch-size", "8", "--steps", "2", "--rounds", "1"]
        if given.tiny
        else "--network resnet50 --side 224 --batch-size 256 --precision bf16 --rounds 3".split()
    )
    done = subprocess.run(
        [sys.executable, str(HERE / "loop_cost.py"), *words], capture_output=True, text=True
    )
    ratio = re.search(r"ratio ([\d.]+)", done.stdout)
    return {"ratio": float(ratio[1])} if ratio else {REASON: done.stderr.strip()[-160:]}


def judged(key: str, cells: Cells) -> tuple[str, str, bool]:
    """Return a row's figure, its aim, and whether it is met."""
    if key == "main job":
        whole, training = cells["whole"], cells["training"]
        aim = f"≤ {WHOLE:.0f} s, training ≤ {TRAINING:.0f} s"
        met = whole <= WHOLE and training <= TRAINING
        return f"{whole:.1f} s, training {training:.1f} s", aim, met
    ratio = cells["ratio"]
    if key == "loop":
        return f"{ratio:.3f} of a bare loop", f"≥ {LOOP}", ratio >= LOOP
    case, method = key.rsplit("|", 1)
    if method == "dense, computed":
        times = STEPS[case]
        return f"recorded {1 / ratio:.2f} times as fast", f"≥ {times:g}", 1 / ratio >= times
    if method.endswith("update"):
        return f"{1 / ratio:.2f} dense steps", f"≤ {UPDATE:g}", 1 / ratio <= UPDATE
    least = DYRELU if method == "east, dyrelu" else AIM
    return f"{ratio:.3f} of dense", f"≥ {least}", ratio >= least


def line(key: str, cells: Cells) -> str:
    """Return a row as a line of text."""
    return " | ".join(row(key, cells))


def row(key: str, cells: Cells) -> list[str]:
    """Return a row of the table."""
    if REASON in cells:
        return [key, "–", str(cells[REASON]), "–", "no"]
    figure, aim, met = judged(key, cells)
    figure += f"; {cells['told']}" if "told" in cells else ""
    times = f"{cells['dense']:.2f}, {cells['own']:.2f}" if "own" in cells else "–"
    return [key, times, figure, aim, "yes" if met else "no"]


def table(cells: Mapping[str, Cells]) -> str:
    """Return all rows in Markdown."""
    header = ["", "ms of a step: recorded dense, this", "figure", "aim", "met"]
    return markdown(header, (row(key, values) for key, values in cells.items()))


if __name__ == "__main__":
    main()
