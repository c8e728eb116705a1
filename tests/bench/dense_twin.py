"""Accuracy cost of GDP: a recipe against its dense twin, over seeds.

    python tests/bench/dense_twin.py --seeds 3
    python tests/bench/dense_twin.py --recipe gdp_resnet20 --seeds 3 --set train.epochs=20

The twin is the same recipe (network, data, epochs, seed) with train-dense as its only pass. For
each seed both are trained and GDP's run goes through all its rewrites; the accuracy on the test
split, dense and shipped, their difference, the MACs and the seconds are printed, then mean ±
standard deviation. Trainings that are finished in ``--runs`` are taken from there, stopped ones
continue, so the command can be repeated after Ctrl-C. It takes about 25 minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from rich.console import Console
from rich.table import Table

from prunec import pipeline
from prunec.artifact import Artifact
from prunec.batches.data import load_data
from prunec.catalogue import build_passes
from prunec.contract import Rewrite
from prunec.recipe import Recipe, digest, load_recipe
from prunec.store.finding import run_folders
from prunec.store.new_runs import create_run
from prunec.store.runs import RunFolder
from prunec.training.evaluation import evaluate
from prunec.training.progress import make_progress
from prunec.training.settings import Settings


@dataclass(frozen=True)
class Row:
    """One seed: percent, MACs by the dense ones, seconds of the two trainings."""

    seed: int
    dense: float
    shipped: float
    macs_ratio: float
    dense_seconds: float
    seconds: float


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipe", default="gdp_mbv2")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 … N−1")
    parser.add_argument("--runs", type=Path, default=Path("runs/dense-twin"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    given = parser.parse_args()
    console = Console()
    rows = []
    for seed in range(given.seeds):
        changes = [*given.changes, f"seed={seed}"]
        rows.append(_row(given.recipe, changes, seed, given.runs, given.device, console))
        Console(width=110).print(table(given.recipe, rows))


def _row(
    name: str, changes: Sequence[str], seed: int, root: Path, device: str, console: Console
) -> Row:
    recipe = load_recipe(name, changes)
    dense, dense_seconds = _trained(_twin(recipe), root, device, console)
    gated, seconds = _trained(recipe, root, device, console)
    shipped = _rewritten(gated, recipe)
    return Row(
        seed=seed,
        dense=_accuracy(dense, recipe),
        shipped=_accuracy(shipped, recipe),
        macs_ratio=shipped.history[-1].macs[1] / shipped.history[0].macs[0],
        dense_seconds=dense_seconds,
        seconds=seconds,
    )


def _twin(recipe: Recipe) -> Recipe:
    """The same training without gates."""
    return recipe.model_copy(
        update={"name": f"{recipe.name}-dense", "passes": ({"name": "train-dense"},)}
    )


def _trained(recipe: Recipe, root: Path, device: str, console: Console) -> tuple[Artifact, float]:
    """The artifact after training, from a run that is there or a new one; its seconds."""
    run = _run_of(recipe, root) or create_run(recipe, root)
    console.print(f"{recipe.name}, seed {recipe.seed}: {run.path}", soft_wrap=True)
    began = time.perf_counter()
    prepared = pipeline.prepare_again(run, device=device, progress=make_progress(console))
    artifact = pipeline.train(prepared, run)
    run.mark("trained")
    spent = time.perf_counter() - began
    return artifact, max(spent, sum(step.seconds for step in artifact.history))


def _run_of(recipe: Recipe, root: Path) -> RunFolder | None:
    """The run in ``root`` that began with this very recipe."""
    wanted = digest(recipe)
    return next((r for r in run_folders(root) if r.record.get("digest") == wanted), None)


def _rewritten(artifact: Artifact, recipe: Recipe) -> Artifact:
    for step in build_passes(recipe, recipe.name):
        if isinstance(step, Rewrite):
            artifact = step(artifact)
    return artifact


def _accuracy(artifact: Artifact, recipe: Recipe) -> float:
    data = load_data(recipe.data, seed=recipe.seed)
    batches = data.test_batches(recipe.train.batch_size)
    return evaluate(artifact.module, batches, data.task, data.device, Settings()).score.percent


def table(name: str, rows: Sequence[Row]) -> Table:
    """The rows, and below them mean ± standard deviation."""
    made = Table(title=f"{name} and its dense twin", title_justify="left", show_footer=True)
    columns = {
        "dense %": [r.dense for r in rows],
        "shipped %": [r.shipped for r in rows],
        "difference": [r.shipped - r.dense for r in rows],
        "MACs ratio": [r.macs_ratio for r in rows],
        "dense s": [r.dense_seconds for r in rows],
        "GDP s": [r.seconds for r in rows],
    }
    digits = {"MACs ratio": 3, "dense s": 0, "GDP s": 0}
    made.add_column("seed", footer="mean ± std")
    for title, values in columns.items():
        made.add_column(title, justify="right", footer=_summary(values, digits.get(title, 2)))
    for index, row in enumerate(rows):
        cells = (f"{v[index]:.{digits.get(title, 2)}f}" for title, v in columns.items())
        made.add_row(str(row.seed), *cells)
    return made


def _summary(values: Sequence[float], digits: int) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.{digits}f} ± {spread:.{digits}f}"


if __name__ == "__main__":
    main()
