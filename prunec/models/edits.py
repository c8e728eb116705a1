"""Edits of a built network by a recipe: other arguments for a module, or identity in its place."""

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
    """Apply edits to ``module`` in place, in order.

    Weights of unchanged shape are kept. A new weight of a convolution or linear layer is drawn from
    a normal distribution with the standard deviation of the old weight; for a convolution it is
    multiplied by √(old fan-out / new fan-out), after He et al. 2015 (``kaiming_normal_`` with
    ``fan_out``, as in torchvision's ResNets and MobileNets).

    Raises:
        RecipeError: there is no such module or argument, or the module refuses a value.
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
            f"{key}.module = {path!r} is not a module of the network",
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
                f"{key}.set.{word} is not an argument of {kind.__name__}",
                remedy=f"{did_you_mean(word, list(arguments))}"
                f"Its arguments: {', '.join(arguments)}.",
            )
        arguments[word] = tuple(value) if isinstance(value, list | tuple) else value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # torch only warns about empty weights
            new = kind(**arguments)
        _initialise(old, new)
    except (TypeError, ValueError, RuntimeError, UserWarning) as error:
        raise RecipeError(
            f"{key}: {kind.__name__} refuses its arguments: {error}",
            remedy=f"It is now: {old}.",
        ) from error
    return new


def _arguments(old: nn.Module, key: str) -> dict[str, Any]:
    """Return the constructor arguments of ``old``, read from its attributes of the same names."""
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
    if "bias" in arguments:  # a flag as an argument, a tensor as an attribute
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
