"""Results of the cells, read from the records of their runs; nothing is computed anew.

Accuracy, MACs, non-zero MACs, parameters and bytes are those of the file at ``prunec export``;
seconds are the sum over epochs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from prunec.comparison.folder import ComparisonFolder, failure_of, steps_left
from prunec.comparison.grid import Cell
from prunec.page.reading import Details, Exports, Parity, RunRecord, read_run
from prunec.store.runs import RunFolder
from prunec.tasks.quality import ACCURACY, DECISIVE, decisive

WHOLE = 0.01
"""Sparsity below which a network counts as dense: ordinary training may leave a dead channel."""

State = Literal["done", "failed", "unfinished", "waiting"]


@dataclass(frozen=True)
class Result:
    """Result of a cell; None for values that are not known yet.

    Attributes:
        method: name of the recipe.
        asked: sparsity asked for; None where the recipe has none.
        seed: seed of weights, batches and masks.
        state: ``done``, ``failed``, ``unfinished`` (it can continue), or ``waiting``.
        proven: whether every check of export and verify passed.
        accuracy: accuracy of the file on the test images, percent; mIoU for segmentation.
        sparsity: share of the dense network's kernel weights that are removed or zero.
        macs: MACs per image.
        nonzero_macs: MACs per image by non-zero weights.
        dense_macs: MACs per image of the network before training.
        params: parameters of the file.
        nonzero_params: non-zero parameters of the file.
        bytes: size of the file.
        latency: latency relative to the dense network, measured at export; batch 1, one thread.
        seconds: time of training, with evaluation after every epoch.
        precision: precision of training.
        run: name of its run folder; empty where there is none.
        message: why it failed; empty where it did not.
        quality: name of the measure in ``accuracy``.
    """

    method: str
    asked: float | None
    seed: int
    state: State
    proven: bool
    accuracy: float | None = None
    sparsity: float | None = None
    macs: int | None = None
    nonzero_macs: int | None = None
    dense_macs: int | None = None
    params: int | None = None
    nonzero_params: int | None = None
    bytes: int | None = None
    latency: float | None = None
    seconds: float | None = None
    precision: str = ""
    run: str = ""
    message: str = ""
    quality: str = ACCURACY.name


@dataclass(frozen=True)
class Row:
    """Cells of a recipe at a sparsity: means over the seeds that have a value.

    Attributes:
        method: name of the recipe.
        asked: sparsity asked for; None where the recipe has none.
        cells: number of seeds.
        n: number of seeds with an accuracy.
        proven: number of proven cells.
        failed: number of failed cells.
        accuracy: mean accuracy in percent.
        deviation: sample standard deviation of the accuracy; None below two seeds.
        sparsity: mean, as of all further fields; units as in :class:`Result`.
        quality: name of the measure in ``accuracy``.
    """

    method: str
    asked: float | None
    cells: int
    n: int
    proven: int
    failed: int
    accuracy: float | None
    deviation: float | None
    sparsity: float | None
    macs: float | None
    nonzero_macs: float | None
    params: float | None
    nonzero_params: float | None
    bytes: float | None
    latency: float | None
    seconds: float | None
    quality: str = ACCURACY.name


def read_results(cells: Sequence[Cell], folder: ComparisonFolder) -> tuple[Result, ...]:
    """Return the results of cells, in order; never raises, whatever the files hold."""
    runs = folder.existing(cells)
    return tuple(_result(cell, runs.get(cell.name)) for cell in cells)


def aggregated(results: Iterable[Result]) -> tuple[Row, ...]:
    """Return one row per recipe and sparsity: recipes in their order, sparsities ascending."""
    groups: dict[str, dict[float | None, list[Result]]] = {}
    for result in results:
        groups.setdefault(result.method, {}).setdefault(result.asked, []).append(result)
    return tuple(
        _row(group)
        for of_method in groups.values()
        for _, group in sorted(of_method.items(), key=lambda item: item[0] or 0.0)
    )


def _result(cell: Cell, run: RunFolder | None) -> Result:
    if run is None:
        return Result(cell.method, cell.sparsity, cell.seed, "waiting", False)
    record = read_run(run)
    failure = failure_of(run)
    done = not steps_left(run)
    parity = record.exported.decisive if record.exported else None
    details = parity.details if parity else None
    figures = details.figures if details else {}
    quality = decisive(figures)
    dense = record.history[0].macs[0] if record.history else None
    return Result(
        method=cell.method,
        asked=cell.sparsity,
        seed=cell.seed,
        state="done" if done else "failed" if failure else "unfinished",
        proven=done,
        accuracy=figures.get(quality.key),
        sparsity=_sparsity(record.exported) if record.exported else None,
        macs=_counted(parity, "MACs"),
        nonzero_macs=_counted(parity, "non-zero MACs"),
        dense_macs=dense,
        params=_counted(parity, "parameters"),
        nonzero_params=_counted(parity, "non-zero parameters"),
        bytes=details.bytes if details else None,
        latency=_latency(details) if details else None,
        seconds=_seconds(record),
        precision=", ".join(sorted({s.chosen.precision for s in record.settings.values()})),
        run=run.name,
        message=f"{failure.step}: {failure.message}" if failure and not done else "",
        quality=quality.name,
    )


def _latency(details: Details) -> float | None:
    """Return the latency relative to the dense network's; 1 if the two cannot be told apart."""
    if details.uncut:
        return 1.0
    return details.latency.reported if details.latency else None


def _counted(parity: Parity | None, name: str) -> int | None:
    """Return the number that a check counted in the file."""
    values = [check.found for check in parity.checks if check.name == name] if parity else []
    return values[0] if values and isinstance(values[0], int) else None


def _sparsity(export: Exports) -> float | None:
    """Return the share of the dense network's kernel weights that are removed or zero."""
    dense = sum(layer.params[1] for layer in export.layers)
    left = sum(layer.nonzero_params for layer in export.layers)
    return 1 - left / dense if dense else None


def _seconds(record: RunRecord) -> float | None:
    spent = [line.numbers["seconds"] for lines in record.epochs.values() for line in lines
             if "seconds" in line.numbers]  # fmt: skip
    return sum(spent) if spent else None


def _row(group: Sequence[Result]) -> Row:
    accuracies = [r.accuracy for r in group if r.accuracy is not None]
    return Row(
        method=group[0].method,
        asked=group[0].asked,
        cells=len(group),
        n=len(accuracies),
        proven=sum(r.proven for r in group),
        failed=sum(r.state == "failed" for r in group),
        accuracy=statistics.fmean(accuracies) if accuracies else None,
        deviation=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        sparsity=_mean(group, lambda r: r.sparsity),
        macs=_mean(group, lambda r: r.macs),
        nonzero_macs=_mean(group, lambda r: r.nonzero_macs),
        params=_mean(group, lambda r: r.params),
        nonzero_params=_mean(group, lambda r: r.nonzero_params),
        bytes=_mean(group, lambda r: r.bytes),
        latency=_mean(group, lambda r: r.latency),
        # Only of fully trained cells: the time of a part of a training would bias the mean.
        seconds=_mean(group, lambda r: None if r.accuracy is None else r.seconds),
        quality=quality_of(group),
    )


def is_whole(row: Row) -> bool:
    """Return whether a row is of a dense network: without a target sparsity, nothing removed."""
    return row.asked is None and row.sparsity is not None and row.sparsity < WHOLE


def quality_of(items: Sequence[Result] | Sequence[Row]) -> str:
    """Return the name of the measure of quality, which is the same for all of a comparison."""
    return next((i.quality for i in items if i.accuracy is not None), ACCURACY.name)


def quality_title(items: Sequence[Result] | Sequence[Row]) -> str:
    """Return the name of the measure of quality, capitalised."""
    name = quality_of(items)
    return next(known.title for known in DECISIVE if known.name == name)


def _mean(group: Sequence[Result], of: Callable[[Result], float | None]) -> float | None:
    values = [value for value in map(of, group) if value is not None]
    return statistics.fmean(values) if values else None
