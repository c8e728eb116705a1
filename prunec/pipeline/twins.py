"""Dense twin of a shipped file: written once for all forms, and timed beside.

A form has its own twin where its runtime opens no ONNX file. If nothing was cut, none is written:
the shipped file is the dense network's.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from prunec.catalogue import runner_for
from prunec.deploy.exporter import Batches, Exact, Exporter, Source
from prunec.deploy.runner import Runner
from prunec.deploy.timing import Latency
from prunec.errors import PrunecError
from prunec.files import sha256_of
from prunec.models.state import weights_digest
from prunec.pipeline.raw_images import Shipping
from prunec.recipe import Recipe
from prunec.store.environment import PACKAGES, environment, prunec_version
from prunec.store.exports import ExportFolder

_MADE_BY = "prunec.made_by"


def write_twin(
    writer: Exporter,
    shipping: Shipping,
    source: Source,
    folder: ExportFolder,
    recipe: Recipe,
    batches: Batches | None,
) -> str:
    """Write the dense network in a form that needs it; remove what an earlier export left.

    Args:
        writer: exporter of the form.
        shipping: the network before any cut, among others.
        source: input of the shipped file's export.
        folder: the run's export folder.
        recipe: recipe with the budgets.
        batches: calibration inputs, for a lossy form.

    Returns:
        Why the form cannot express the dense network; empty if it can, or no twin is needed.
    """
    place = folder.dense(writer.form(), writer.suffix)
    if shipping.is_dense:
        shutil.rmtree(place.parent, ignore_errors=True)
        return ""
    if writer.reads:
        shutil.rmtree(place.parent, ignore_errors=True)
        return _write_own(writer, shipping, source, place, recipe)
    earlier = folder.recorded.get(writer.form(), {}).get("dense_sha256")
    _write_root(writer, shipping, place, batches, earlier)
    return ""


def _write_root(
    writer: Exporter,
    shipping: Shipping,
    twin: Path,
    batches: Batches | None,
    earlier: object,
) -> None:
    """Write the dense network's file, unless an earlier export left the same one.

    Its batch norms are folded: a runtime would fold them anyway when it loads the file, which is
    only timed, and a graph of half the size takes half the time to write.

    Args:
        writer: exporter of the form.
        shipping: artifacts and data; the network before any cut is written.
        twin: path of the file.
        batches: calibration inputs, for a lossy form.
        earlier: digest of the file that an earlier export left, from the manifest.
    """
    versions = {key: value for key, value in environment().items() if key in PACKAGES}
    inputs = {"prunec": prunec_version(), "dense": weights_digest(shipping.dense.module)}
    # The bytes of the twin depend on nothing else.
    made_by = json.dumps({**inputs, **versions, **asdict(writer)}, sort_keys=True)
    with suppress(PrunecError):
        written = writer.read_back(twin)
        if sha256_of(twin) == earlier and (written.metadata or {}).get(_MADE_BY) == made_by:
            return
    # Norms are folded, as in the shipped file, so that the ratio of times shows the cut alone.
    writer(Source(shipping.folded_dense, {_MADE_BY: made_by}), twin, batches)


def _write_own(
    writer: Exporter, shipping: Shipping, source: Source, place: Path, recipe: Recipe
) -> str:
    """Write the dense network in a form, to time the shipped file beside it under one runtime.

    Only where the recipe bounds the ratio of latencies, and the runtime does not open the dense
    ONNX file. Code is excluded: its twin would be compiled.
    """
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
