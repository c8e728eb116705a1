"""What a run costs: its dense network, what each of its passes left, each file that ships."""

from __future__ import annotations

from prunec.artifact import Artifact
from prunec.cost import Cost
from prunec.errors import PrunecError
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


def _folder(opened: OpenedRun, index: int) -> str:
    return opened.run.step(index, opened.passes[index].pass_name()).name
