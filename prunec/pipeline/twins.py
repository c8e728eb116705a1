"""Dense twin of a shipped file: written where its runtime opens no ONNX file, and timed beside."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from prunec.catalogue import runner_for
from prunec.deploy.exporter import Exact, Exporter, Source
from prunec.deploy.runner import Runner
from prunec.deploy.timing import Latency
from prunec.errors import PrunecError
from prunec.pipeline.raw_images import Shipping
from prunec.recipe import Recipe
from prunec.store.exports import ExportFolder


def write_own_twin(
    writer: Exporter, shipping: Shipping, source: Source, folder: ExportFolder, recipe: Recipe
) -> str:
    """Write the dense network in a form, to time the shipped file beside it under one runtime.

    Only where the recipe bounds the ratio of latencies, and the runtime does not open the dense
    ONNX file. Code is excluded: its twin would be compiled.

    Args:
        writer: exporter of the form.
        shipping: the network before any cut, among others.
        source: input of the shipped file's export.
        folder: the run's export folder.
        recipe: recipe with the budgets.

    Returns:
        Why the form cannot express the dense network; empty if it can, or no twin is needed.
    """
    place = folder.dense(writer.form(), writer.suffix)
    shutil.rmtree(place.parent, ignore_errors=True)
    wanted = recipe.verify.budget.latency_ratio is not None and isinstance(writer, Exact)
    if not wanted or writer.is_code or writer.runs_on or _opens_onnx(writer, source):
        return ""
    try:
        writer(replace(source, artifact=shipping.folded_dense), place)
    except PrunecError as error:
        return error.message
    return ""


def time_beside_twin(runner: Runner, path: Path, twin: Path, limit: float | None) -> Latency | None:
    """Measure a file in turns with its dense twin.

    A result above the limit is measured again with both files opened anew, and the lower one
    counts: one loading can lie badly in memory, and other work can slow one file alone for as long
    as a measurement lasts.

    Args:
        runner: runner of the file.
        path: the shipped file.
        twin: the dense network's file.
        limit: budget of the ratio; None if there is none.

    Returns:
        The latency; None if there is no twin that the runner opens.

    Raises:
        PrunecError: a file cannot be loaded or run.
    """
    if not twin.is_file() or twin.suffix not in runner.suffixes:
        return None
    first = runner.open(path).time(runner.open(twin))
    if limit is None or not first.certainly_above(limit):
        return first
    second = runner.open(path).time(runner.open(twin))
    return min(first, second, key=lambda latency: latency.ratio)


def _opens_onnx(writer: Exporter, source: Source) -> bool:
    return source.files[writer.reads].suffix in runner_for(writer.suffix).suffixes
