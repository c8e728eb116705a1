"""Inspection of a run, a recipe or a network by name: layers and channel groups."""

from __future__ import annotations

from torch import Tensor, nn

from prunec.errors import RunError
from prunec.graph.rewriting.compile import compile_module
from prunec.graph.rewriting.plan import Input
from prunec.inspection.network import Inspection, inspect_module
from prunec.models.gates import absorbed
from prunec.pipeline.named import named_network
from prunec.pipeline.opened import OpenedRun
from prunec.pipeline.opened_recipe import OpenedRecipe
from prunec.recipe import Recipe
from prunec.store.runs import RunFolder
from prunec.store.states import unfinished


def inspect(
    subject: RunFolder | str, inputs: tuple[Input, ...] = (), weights: str = "", classes: int = 0
) -> Inspection:
    """Return layers and channel groups of a run's last artifact, or of a network by name.

    For a run, the remaining channels are those after its rewrites; before the rewrites ran, those
    that a cut would keep.

    Args:
        subject: a run, or a name as in a recipe's ``model.name``.
        inputs: inputs of a network by name; by default one image of its usual size.
        weights: weights of a network by name, as in a recipe's ``model.weights``.
        classes: classes of a network by name; 0 for those of its weights or factory, or 1000.

    Raises:
        RunError: the run has no finished pass, or inputs are given for it.
        RecipeError: there is no such network.
        DataError: the network does not take these inputs.
        UntraceableModel: the network cannot be captured.
    """
    if isinstance(subject, str):
        return _inspect_named(subject, inputs, weights, classes)
    if inputs or weights or classes:
        raise _refused_options(str(subject.path))
    opened = OpenedRun(subject)
    if not opened.done:
        raise unfinished(subject, "finished pass")
    last = opened.done[-1]
    artifact = opened.artifact(last)
    title = f"{subject.name} after {opened.passes[last].pass_name()}"
    # Gates multiply kernels: a gate of zero is a dead channel only after it is absorbed.
    dense = absorbed(artifact.module)
    if artifact.plans:
        return inspect_module(
            title, opened.dense, artifact.example, now=artifact.module, plans=artifact.plans
        )
    said = [getattr(step, "round_to", 1) for step in opened.passes]
    # "measured" is no number here: nothing is timed for an inspection.
    round_to = max((value for value in said if isinstance(value, int)), default=1)
    made = compile_module(dense, artifact.example, masks=artifact.masks, round_to=round_to)
    return inspect_module(
        f"{title}, and what a cut would keep",
        dense,
        artifact.example,
        now=made.module,
        plans=(made.plan,),
        because=made.because,
    )


def inspect_recipe(recipe: Recipe, source: str) -> Inspection:
    """Return layers and channel groups of the network that a recipe builds, at its images' size.

    Raises:
        DataError: its data are missing, or the network does not take them.
        UntraceableModel: the network cannot be captured.
    """
    fresh = OpenedRecipe(lambda: recipe, source).fresh()
    return _inspected(f"{recipe.name}: {recipe.model.name}", fresh.module, fresh.example)


def _inspect_named(name: str, inputs: tuple[Input, ...], weights: str, classes: int) -> Inspection:
    return _inspected(name, *named_network(name, inputs, weights, classes))


def _inspected(title: str, module: nn.Module, example: tuple[Tensor, ...]) -> Inspection:
    shapes = ", ".join("×".join(map(str, item.shape[1:])) for item in example)
    return inspect_module(f"{title}, input {shapes}", module, example)


def _refused_options(subject: str) -> RunError:
    return RunError(
        f"{subject} has its own inputs, weights and classes",
        remedy="Leave --input, --weights and --classes out: they are for networks by name.",
    )
