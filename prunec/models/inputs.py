"""Checks of the arguments of the public functions, before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from prunec.errors import PrunecError
from prunec.graph.capture.samples import doubled
from prunec.wording import did_you_mean


def checked_module(model: nn.Module) -> nn.Module:
    """Return ``model`` if it is a network.

    Raises:
        PrunecError: it is something else.
    """
    if isinstance(model, nn.Module):
        return model
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise PrunecError(
            f"the model is the class {model.__name__}, not an instance of it",
            remedy=f"Create one: {model.__name__}(...).",
        )
    raise PrunecError(
        f"the model is of type {type(model).__name__}, not a torch.nn.Module",
        remedy="Give the network itself; wrap a function in a module's forward.",
    )


def checked_example(
    model: nn.Module, example_inputs: Tensor | Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Return the example as a tuple of tensors of at least two samples.

    A batch of one would be indistinguishable from a constant size 1, so its sample is repeated.

    Raises:
        PrunecError: it is not a tensor or tuple of tensors, has no sample, or is on another device
            than the network.
    """
    if isinstance(example_inputs, Tensor):
        example_inputs = (example_inputs,)
    if not isinstance(example_inputs, (tuple, list)):
        raise PrunecError(
            f"example_inputs is of type {type(example_inputs).__name__}, not a tensor or a tuple "
            "of tensors",
            remedy="Give the positional arguments of forward in order, as one tuple of tensors.",
        )
    if not example_inputs:
        raise PrunecError(
            "example_inputs is empty",
            remedy="Give one tensor for each argument of forward.",
        )
    for place, value in enumerate(example_inputs):
        _check_tensor(model, value, f"example_inputs[{place}]")
    if not example_inputs[0].dim():
        raise PrunecError(
            "example_inputs[0] is a single number without a batch axis",
            remedy="The first input is batch first: (N, …).",
        )
    return doubled([value.detach().clone() for value in example_inputs])


def _check_tensor(model: nn.Module, value: object, place: str) -> None:
    if not isinstance(value, Tensor):
        raise PrunecError(
            f"{place} is of type {type(value).__name__}, not a tensor",
            remedy="Give tensors only; fix other arguments in a module that wraps the network.",
        )
    if value.dim() and not len(value):
        raise PrunecError(
            f"{place} has shape {tuple(value.shape)}: it has no sample",
            remedy="Give a batch of one or more samples.",
        )
    device = next((p.device for p in model.parameters()), value.device)
    if value.device != device:
        raise PrunecError(
            f"{place} is on {value.device}, the network on {device}",
            remedy=f"Move one to the other: example_inputs.to({str(device)!r}).",
        )


def checked_masks(model: nn.Module, masks: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Return the masks, each on the device of its parameter.

    Raises:
        PrunecError: a mask names no parameter, is not bool, or has another shape than it.
    """
    if masks is None:
        return {}
    if not isinstance(masks, Mapping):
        raise PrunecError(
            f"masks is of type {type(masks).__name__}, not a mapping",
            remedy="Give a dict: parameter name → bool tensor of the parameter's shape.",
        )
    parameters = dict(model.named_parameters(remove_duplicate=False))
    moved: dict[str, Tensor] = {}
    for name, mask in masks.items():
        _check_mask(name, mask, parameters)
        moved[name] = mask.to(parameters[name].device)
    return moved


def _check_mask(name: str, mask: object, parameters: Mapping[str, nn.Parameter]) -> None:
    if name not in parameters:
        raise PrunecError(
            f"masks[{name!r}]: the network has no parameter of that name",
            remedy=did_you_mean(str(name), list(parameters)).strip()
            or "Names are those of model.named_parameters().",
        )
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = str(mask.dtype) if isinstance(mask, Tensor) else type(mask).__name__
        raise PrunecError(
            f"masks[{name!r}] is {kind}, not a bool tensor",
            remedy="True keeps a weight, False counts as zero; for example mask != 0.",
        )
    if mask.shape != parameters[name].shape:
        raise PrunecError(
            f"masks[{name!r}] has shape {tuple(mask.shape)}, the parameter "
            f"{tuple(parameters[name].shape)}",
            remedy="Give a mask of the parameter's shape, or leave it out.",
        )


def checked_round_to(round_to: int) -> int:
    """Return ``round_to`` if counts can be rounded up to multiples of it.

    Raises:
        PrunecError: it is not a whole number of at least 1.
    """
    if isinstance(round_to, bool) or not isinstance(round_to, int) or round_to < 1:
        raise PrunecError(
            f"round_to = {round_to!r} is not a whole number of at least 1",
            remedy="1 rounds nothing; 8 or 16 suit the blocks of most kernels.",
        )
    return round_to
