"""What a run or a network by name is made of."""

from __future__ import annotations

from prunec.errors import RunError
from prunec.graph.rewriting.compile import compile_module
from prunec.graph.rewriting.plan import Input
from prunec.inspection.network import Inspection, inspect_module
from prunec.models.gates import absorbed
from prunec.pipeline.named import named_network
from prunec.pipeline.opened import OpenedRun
from prunec.store.runs import RunFolder
from prunec.store.states import unfinished


def inspect(subject: RunFolder | str, inputs: tuple[Input, ...] = ()) -> Inspection:
    """Layers and channel groups of a run's last artifact, or of a network by name.

    What is left of a run is what its rewrites left; before them, what they would leave.

    Args:
        subject: a run, or a name as in a recipe's ``model.name``.
        inputs: what a network by name takes; by default one image of its usual size.

    Raises:
        RunError: the run has no finished pass, or inputs are given for it.
        RecipeError: there is no such network.
        DataError: the network does not take these inputs.
        UntraceableModel: the network cannot be captured.
    """
    if isinstance(subject, str):
        return _inspect_named(subject, inputs)
    if inputs:
        raise RunError(
            f"{subject.path} knows its inputs", remedy="--input is for networks by name."
        )
    opened = OpenedRun(subject)
    if not opened.done:
        raise unfinished(subject, "finished pass")
    last = opened.done[-1]
    artifact = opened.artifact(last)
    title = f"{subject.name} after {opened.passes[last].pass_name()}"
    dense = absorbed(artifact.module)
    if artifact.plans:
        return inspect_module(
            title, opened.dense, artifact.example, now=artifact.module, plans=artifact.plans
        )
    round_to = max((getattr(p, "round_to", 1) for p in opened.passes), default=1)
    made = compile_module(dense, artifact.example, masks=artifact.masks, round_to=round_to)
    return inspect_module(
        f"{title}, and what of it a cut would keep",
        dense,
        artifact.example,
        now=made.module,
        plans=(made.plan,),
        because=made.because,
    )


def _inspect_named(name: str, inputs: tuple[Input, ...]) -> Inspection:
    module, example = named_network(name, inputs)
    shapes = ", ".join("×".join(map(str, item.shape[1:])) for item in example)
    return inspect_module(f"{name}, input {shapes}", module, example)
