"""Networks by name, as ``inspect``, ``count`` and ``compile`` take them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunec.errors import DataError
from prunec.graph.rewriting.plan import Input
from prunec.models.building import CLASSES, build_model
from prunec.models.edits import apply_edits
from prunec.models.weights import named_weights
from prunec.recipe import ModelSpec
from prunec.recipe.network_and_data import ModuleEdit

IMAGE = (3, 224, 224)  # (C, H, W) of ImageNet, for networks that do not state their input

BY_NAME = "Name the shape of one sample of each input: --input 3x299x299."

Network = tuple[nn.Module, tuple[Tensor, ...]]


def named_network(
    name: str, inputs: tuple[Input, ...] = (), weights: str = "", classes: int = 0
) -> Network:
    """Return a network by name, in eval mode, and blank inputs for it, two samples.

    Args:
        name: as in a recipe's ``model.name``.
        inputs: its inputs; by default one image of its usual size.
        weights: as in a recipe's ``model.weights``.
        classes: number of classes; 0 for that of the weights or of the factory, or 1000.

    Raises:
        RecipeError: there is no such network.
        DataError: the network does not take these inputs, or the weights do not fit.
    """
    spec = ModelSpec(name=name, weights=weights)
    classes = classes or (classes_of(spec) if weights else 0)
    module = build_model(spec, classes, seed=0).eval()
    inputs = inputs or usual_inputs(module)
    if not weights:
        _fit_first_convolution(module, inputs)
    example = tuple(item.blank(torch.device("cpu")) for item in inputs)
    require_inputs(name, module, example)
    return module, example


def usual_inputs(module: nn.Module) -> tuple[Input, ...]:
    """Return one image of a network's usual size: timm's networks state theirs."""
    usual = getattr(module, "default_cfg", {}).get("input_size", IMAGE)
    return (Input((2, *usual), "float32"),)


def random_example(inputs: tuple[Input, ...], seed: int) -> tuple[Tensor, ...]:
    """Return inputs of these shapes: normal numbers, or zeros for integer types."""
    generator = torch.Generator().manual_seed(seed)
    blank = [item.blank(torch.device("cpu")) for item in inputs]
    return tuple(x.normal_(generator=generator) if x.is_floating_point() else x for x in blank)


def classes_of(spec: ModelSpec) -> int:
    """Return the number of classes of a checkpoint's head.

    It is the size of the first axis where the checkpoint differs from the network of 1000 classes.

    Raises:
        DataError: the file cannot be read, or it has heads of several sizes.
    """
    bare = spec.model_copy(update={"weights": "", "masks": "", "backbone_weights": ""})
    module = build_model(bare, CLASSES, seed=0)
    given = named_weights(module, spec.name, spec.weights).tensors
    sizes = {
        given[key].shape[0]
        for key, fresh in module.state_dict().items()
        if key in given and fresh.dim() and fresh.dim() == given[key].dim()
        # Tensors of the head: 1000 rows in the fresh network, another number in the checkpoint.
        if fresh.shape[0] == CLASSES != given[key].shape[0]
    }
    if len(sizes) > 1:
        counts = ", ".join(map(str, sorted(sizes)))
        raise DataError(
            f"model.weights = {spec.weights!r} has heads of {counts} classes",
            remedy="State the number of classes: --classes N, or model.classes = N.",
        )
    return sizes.pop() if sizes else CLASSES


def checkpoint_notes(spec: ModelSpec, classes: int) -> tuple[str, ...]:
    """Return sentences on the recognised format of a checkpoint."""
    bare = spec.model_copy(update={"weights": "", "masks": "", "backbone_weights": ""})
    return named_weights(build_model(bare, classes, seed=0), spec.name, spec.weights).notes


def require_inputs(
    name: str, module: nn.Module, example: tuple[Tensor, ...], remedy: str = BY_NAME
) -> None:
    """Check that a network takes an example.

    Args:
        name: name of the network, for errors.
        module: the network.
        example: one tensor per input.
        remedy: how to name other inputs.

    Raises:
        DataError: its forward pass fails.
    """
    try:
        with torch.no_grad():
            module(*(x.clone() for x in example))
    except Exception as error:  # whatever the network's own code raises
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        shapes = ", ".join("×".join(map(str, item.shape[1:])) for item in example)
        raise DataError(
            f"{name} does not take an input of {shapes}: {reason}",
            remedy=remedy,
        ) from error


def _fit_first_convolution(module: nn.Module, inputs: tuple[Input, ...]) -> None:
    """Replace the first convolution of a network of one image input to fit other channels."""
    convolutions = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.Conv2d)]
    if len(inputs) > 1 or len(inputs[0].shape) != 4 or not convolutions:
        return
    name, first = convolutions[0]
    channels = inputs[0].shape[1]
    if first.in_channels != channels:
        apply_edits(module, [ModuleEdit(module=name, set={"in_channels": channels})])
