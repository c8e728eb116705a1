"""What a run or a network by name is made of."""

from __future__ import annotations

import torch
from torch import nn

from prunec.errors import DataError, RunError
from prunec.graph.rewriting.compile import compile_module
from prunec.graph.rewriting.plan import Input
from prunec.inspection.network import Inspection, inspect_module
from prunec.models.building import build_model
from prunec.models.edits import apply_edits
from prunec.models.gates import absorbed
from prunec.pipeline.opened import OpenedRun
from prunec.recipe import ModelSpec
from prunec.recipe.schema import ModuleEdit
from prunec.store.runs import RunFolder
from prunec.wording import first_line

CLASSES = 1000  # of a network that is inspected by name alone
IMAGE = (3, 224, 224)  # what such a network takes unless it knows better


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
        raise RunError(
            f"{subject.path} has no finished pass", remedy="Train it: prunec train --resume"
        )
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
    module = build_model(ModelSpec(name=name), CLASSES, seed=0).eval()
    usual = getattr(module, "default_cfg", {}).get("input_size", IMAGE)  # timm's networks know
    inputs = inputs or (Input((2, *usual), "float32"),)
    _fit_first_convolution(module, inputs)
    shapes = ", ".join("×".join(map(str, item.shape[1:])) for item in inputs)
    example = tuple(item.blank(torch.device("cpu")) for item in inputs)
    _require_inputs(name, module, example, shapes)
    return inspect_module(f"{name}, input {shapes}", module, example)


def _require_inputs(
    name: str, module: nn.Module, example: tuple[torch.Tensor, ...], shapes: str
) -> None:
    try:
        with torch.no_grad():
            module(*example)
    except Exception as error:  # whatever the network's own code raises
        raise DataError(
            f"{name} does not take an input of {shapes}: {first_line(error)}",
            remedy="Name one sample of each input that it takes: --input 3x299x299",
        ) from error


def _fit_first_convolution(module: nn.Module, inputs: tuple[Input, ...]) -> None:
    """Let a network of one image input read images of another number of channels."""
    convolutions = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.Conv2d)]
    if len(inputs) > 1 or len(inputs[0].shape) != 4 or not convolutions:
        return
    name, first = convolutions[0]
    channels = inputs[0].shape[1]
    if first.in_channels != channels:
        apply_edits(module, [ModuleEdit(module=name, set={"in_channels": channels})])
