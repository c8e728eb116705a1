"""Changes of a built network that a recipe asks for: other arguments for a module, or identity."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from prunec.errors import RecipeError
from prunec.recipe import ModuleEdit
from prunec.wording import did_you_mean


def apply_edits(module: nn.Module, edits: Sequence[ModuleEdit]) -> None:
    """Change ``module`` in place, edit by edit.

    Weights whose shape an edit leaves alone are kept. A convolution's or linear layer's new weight
    is drawn as the network drew the old one: normal, with the old one's standard deviation, for a
    convolution times √(fan-out old / fan-out new), as He's rule (``kaiming_normal_`` with
    ``fan_out``, the rule of torchvision's ResNets and MobileNets) would have it.

    Raises:
        RecipeError: no such module, an argument that it does not have, or a refused value.
    """
    for place, edit in enumerate(edits):
        _apply(module, edit, f"model.edit[{place}]")


def _apply(module: nn.Module, edit: ModuleEdit, key: str) -> None:
    old = _find(module, edit.module, key)
    new = nn.Identity() if edit.identity else _rebuilt(old, edit.set, key)
    parent, _, name = edit.module.rpartition(".")
    setattr(module.get_submodule(parent), name, new.train(old.training))


def _find(module: nn.Module, path: str, key: str) -> nn.Module:
    names = [name for name, _ in module.named_modules() if name]
    if path not in names:
        raise RecipeError(
            f"{key}.module = {path!r} is no module of the network",
            remedy=did_you_mean(path, names).strip()
            or f"Its outermost modules: {', '.join(name for name, _ in module.named_children())}.",
        )
    return module.get_submodule(path)


def _rebuilt(old: nn.Module, changes: dict[str, Any], key: str) -> nn.Module:
    kind = type(old)
    arguments = _arguments(old, key)
    for word, value in changes.items():
        if word not in arguments:
            raise RecipeError(
                f"{key}.set.{word} is no argument of {kind.__name__}",
                remedy=f"{did_you_mean(word, list(arguments))}"
                f"Its arguments: {', '.join(arguments)}.",
            )
        arguments[word] = tuple(value) if isinstance(value, list | tuple) else value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # torch only warns of empty weights
            new = kind(**arguments)
        _initialise(old, new)
    except (TypeError, ValueError, RuntimeError, UserWarning) as error:
        raise RecipeError(
            f"{key}: {kind.__name__} refuses its arguments: {error}",
            remedy=f"Found now: {old}.",
        ) from error
    return new


def _arguments(old: nn.Module, key: str) -> dict[str, Any]:
    """Return the arguments that ``old`` was made with: its attributes of those names."""
    names = [word for word in inspect.signature(type(old)).parameters if word not in _PLACES]
    if not type(old).__module__.startswith("torch.nn.") or any(
        not hasattr(old, word) for word in names
    ):
        raise RecipeError(
            f"{key}: a {type(old).__name__} cannot be rebuilt",
            remedy="Name a layer inside it: a convolution, linear layer, norm, pooling or "
            "activation.",
        )
    arguments = {word: getattr(old, word) for word in names}
    if "bias" in arguments:  # asked for as a flag, kept as a tensor
        arguments["bias"] = arguments["bias"] is not None
    return arguments


_PLACES = ("device", "dtype")


@torch.no_grad()
def _initialise(old: nn.Module, new: nn.Module) -> None:
    before = old.state_dict()
    for name, value in new.state_dict().items():
        known = before.get(name)
        if known is None:
            continue
        if known.shape == value.shape:
            value.copy_(known)
        elif name == "weight" and known.ndim > 1:
            value.normal_(std=float(known.std()) * math.sqrt(_fan_out(old) / _fan_out(new)))
        elif name == "bias" and not known.any():
            value.zero_()


def _fan_out(module: nn.Module) -> float:
    if not isinstance(module, nn.Conv2d):
        return 1.0
    return module.out_channels * math.prod(module.kernel_size) / module.groups
