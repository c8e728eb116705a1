"""Decorator of the public functions, by which they have no side effects on their arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import ParamSpec, TypeVar

from torch import Tensor, nn

from prunec.graph.capture.surroundings import undisturbed

P = ParamSpec("P")
R = TypeVar("R")
Example = Tensor | Sequence[Tensor]
"""The positional inputs of a network: a tensor or a tuple of tensors, batch first."""


def leaving_all_as_it_was(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a public function so that random state, the network and its class stay unchanged."""

    @functools.wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        # By position or by any name: the first argument of every public function is the network.
        model = args[0] if args else next(iter(kwargs.values()), None)
        with undisturbed(model) if isinstance(model, nn.Module) else nullcontext():
            return function(*args, **kwargs)

    return inside
