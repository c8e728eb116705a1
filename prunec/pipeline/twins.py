"""Dense twin of a form whose runtime opens no ONNX file: the uncut network in that form."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace

from prunec.catalogue import runner_for
from prunec.deploy.exporter import Exact, Exporter, Source
from prunec.errors import PrunecError
from prunec.pipeline.raw_images import Shipping
from prunec.recipe import Recipe
from prunec.store.exports import ExportFolder


def write_own_twin(
    writer: Exporter, shipping: Shipping, source: Source, folder: ExportFolder, recipe: Recipe
) -> None:
    """Write the dense network in a form, to time the shipped file beside it under one runtime.

    Only where the recipe bounds the ratio of latencies, and the runtime does not open the dense
    ONNX file. Code is excluded: its twin would be compiled. A form that cannot express the dense
    network has no twin, so that its latency is listed as not checked.

    Args:
        writer: exporter of the form.
        shipping: the network before any cut, among others.
        source: input of the shipped file's export.
        folder: the run's export folder.
        recipe: recipe with the budgets.
    """
    place = folder.dense(writer.form(), writer.suffix)
    shutil.rmtree(place.parent, ignore_errors=True)
    wanted = recipe.verify.budget.latency_ratio is not None and isinstance(writer, Exact)
    if not wanted or writer.is_code or writer.runs_on or _opens_onnx(writer, source):
        return
    with suppress(PrunecError):
        writer(replace(source, artifact=shipping.folded_dense), place)


def _opens_onnx(writer: Exporter, source: Source) -> bool:
    return source.files[writer.reads].suffix in runner_for(writer.suffix).suffixes
