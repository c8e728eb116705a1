"""Ties: parameters that several modules share; listing and restoring them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn


def ties_of(module: nn.Module) -> dict[str, str]:
    """Return name → first name, for all but the first name of every shared parameter."""
    first = {id(value): name for name, value in module.named_parameters()}
    everywhere = module.named_parameters(remove_duplicate=False)
    return {name: first[id(p)] for name, p in everywhere if first[id(p)] != name}


def tie(module: nn.Module, ties: Mapping[str, str]) -> None:
    """Share parameters, in place.

    Args:
        module: the network.
        ties: name of a parameter → name of the parameter that replaces it.
    """
    for name, owner in ties.items():
        holder, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(holder), attribute, module.get_parameter(owner))
