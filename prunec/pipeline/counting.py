"""Costs of a run: of its dense network, of the network after each pass, of each exported file."""

from __future__ import annotations

from pathlib import Path

from prunec.artifact import Artifact
from prunec.catalogue import exporter, exporter_names
from prunec.cost import Cost
from prunec.cost.lifetimes import Peak, peak
from prunec.cost.onnx_flow import onnx_flow
from prunec.cost.onnx_reading import foreign_bytes, read_model
from prunec.cost.onnx_sizes import Sizes, sized
from prunec.deploy.exporter import Exporter
from prunec.errors import PassError, PrunecError, RunError
from prunec.pipeline.opened import OpenedRun
from prunec.store.runs import RunFolder
from prunec.store.states import unfinished


def count(run: RunFolder) -> dict[str, Cost]:
    """Count each step and each form of a run anew, ignoring recorded costs.

    Returns:
        ``dense``, names of steps (``00-train-str``) and forms (``export/onnx``) → cost.

    Raises:
        RunError: the run has no finished pass, or a step of it is damaged.
        PrunecError: an exported file is missing, or cannot be read or counted.
    """
    opened = OpenedRun(run)
    if not opened.done:
        raise unfinished(run, "finished pass")
    artifacts = {
        _folder(opened, index): opened.artifact(index) for index in range(opened.done[-1] + 1)
    }
    example = next(iter(artifacts.values())).example
    artifacts = {"dense": Artifact(opened.dense, example), **artifacts}
    costs = {name: artifact.cost for name, artifact in artifacts.items()}
    for writer in opened.exporters(run.export.forms):
        path = run.export.shipped(writer.form(), writer.suffix)
        if writer.form() not in run.export.forms:
            continue
        written = writer.read_back(path)
        if written.cost is None and written.uncounted:
            raise PrunecError(f"{path}: {written.uncounted}")
        if written.cost is not None:
            costs[f"export/{writer.form()}"] = written.cost
    return costs


def memory(run: RunFolder) -> dict[str, Peak | None]:
    """Return the peak activation memory of every file of a run's export.

    Returns:
        ``dense`` (the ONNX file of the dense network) and forms → peak; None for a form whose files
        cannot be analysed.

    Raises:
        RunError: the run has no export.
        PrunecError: a file is missing or cannot be read, or its memory depends on the input.
    """
    shipped = run.export.forms
    writers = [w for w in OpenedRun(run).exporters(shipped) if w.form() in shipped]
    if not writers:
        raise RunError(
            f"{run.path} has no export", remedy=f"Export first: prunec export {run.path}"
        )
    peaks: dict[str, Peak | None] = {}
    for writer in writers:
        dense = run.export.timed_beside(writer.form(), writer.suffix)
        if dense.is_file() and not writer.reads:
            peaks["dense"] = _peak(writer, dense)
        peaks[writer.form()] = _peak(writer, run.export.shipped(writer.form(), writer.suffix))
    return peaks


def _peak(writer: Exporter, path: Path) -> Peak | None:
    flow = writer.flow(path)
    return peak(flow) if flow else None


def memory_of(path: Path, sizes: Sizes) -> Peak:
    """Return the peak activation memory of a file of any form.

    Args:
        path: the file.
        sizes: shapes of inputs that have dynamic sizes in an ONNX file.

    Raises:
        PrunecError: files of this suffix cannot be analysed, the file cannot be read, or its
            memory depends on the input.
    """
    if path.suffix == ".onnx":
        with foreign_bytes(path):
            return peak(onnx_flow(sized(read_model(path), sizes)))
    for name in exporter_names():
        try:
            kind = exporter(name)
        except PassError:
            continue  # its package is not installed
        flow = kind().flow(path) if kind.suffix == path.suffix else None
        if flow:
            return peak(flow)
    raise PrunecError(
        f"the memory of {path} is unknown: {path.suffix or 'such'} files cannot be analysed",
        remedy="Name a .onnx, .ort, .xml, .tflite, .pte or .param file, or a run; all but the "
        "first two need the extra of their runtime.",
    )


def _folder(opened: OpenedRun, index: int) -> str:
    return opened.run.step(index, opened.passes[index].pass_name()).name
