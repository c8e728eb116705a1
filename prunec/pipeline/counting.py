"""What a run costs: its dense network, what each of its passes left, each file that ships."""

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
    """Return what each step and each form of a run costs, counted now, not as it was recorded.

    Keys are ``dense``, then the names of the steps, ``00-train-str``, then those of the forms,
    ``export/onnx``.

    Raises:
        RunError: the run has no finished pass, or a step of it is damaged.
        PrunecError: a file that ships is missing, or cannot be read or counted.
    """
    opened = OpenedRun(run)
    if not opened.done:
        raise unfinished(run, "finished pass")
    artifacts = {
        _folder(opened, index): opened.artifact(index) for index in range(opened.done[-1] + 1)
    }
    example = next(iter(artifacts.values())).example
    artifacts = {"dense": Artifact(opened.dense, example), **artifacts}
    found = {name: artifact.cost for name, artifact in artifacts.items()}
    for writer in opened.exporters(run.export.forms):
        path = run.export.shipped(writer.form(), writer.suffix)
        if writer.form() not in run.export.forms:
            continue
        written = writer.read_back(path)
        if written.cost is None and written.uncounted:
            raise PrunecError(f"{path}: {written.uncounted}")
        if written.cost is not None:
            found[f"export/{writer.form()}"] = written.cost
    return found


def memory(run: RunFolder) -> dict[str, Peak | None]:
    """Return the peak activation memory of every file of a run's export; None: it does not tell.

    Keys are ``dense``, the ONNX file of the network before anything was cut, then the forms.

    Raises:
        RunError: the run has no export.
        PrunecError: a file is missing or cannot be read, or what it holds depends on the input.
    """
    shipped = run.export.forms
    writers = [w for w in OpenedRun(run).exporters(shipped) if w.form() in shipped]
    if not writers:
        raise RunError(
            f"{run.path} has no export", remedy=f"Export first: prunec export {run.path}"
        )
    found: dict[str, Peak | None] = {}
    for writer in writers:
        dense = run.export.dense(writer.form(), writer.suffix)
        if dense.is_file():
            found["dense"] = _peak(writer, dense)
        found[writer.form()] = _peak(writer, run.export.shipped(writer.form(), writer.suffix))
    return found


def _peak(writer: Exporter, path: Path) -> Peak | None:
    flow = writer.flow(path)
    return peak(flow) if flow else None


def memory_of(path: Path, sizes: Sizes) -> Peak:
    """Return the peak activation memory of a file of any form.

    Args:
        path: the file.
        sizes: of inputs that an ONNX file leaves open.

    Raises:
        PrunecError: no form of its kind tells it, it cannot be read, or it depends on the input.
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
        f"what {path} holds is not known: {path.suffix or 'such'} files do not tell it",
        remedy="Name a .onnx, .xml or .tflite file, or a run; OpenVINO and LiteRT are extras.",
    )


def _folder(opened: OpenedRun, index: int) -> str:
    return opened.run.step(index, opened.passes[index].pass_name()).name
