"""Input axes whose length is a literal number in the graph: an error at any other length.

Loops over time steps, divisions by ``x.shape[1]``, grids of that many points: Python turns such a
length into a number, and the graph holds the number. The network is therefore followed at other
lengths too. If it then computes differently, the graph holds for one length only; if it does not
run at all, the user cannot choose the length.
"""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.fx import GraphModule

from prunec.errors import PrunecError

Fixed = tuple[int, int, int, str]
"""(input number, axis, required length, operator that depends on it)."""
Place = tuple[int, int]
"""(input number, axis)."""
Shapes = tuple[tuple[int, ...], ...]
Follow = Callable[[Shapes], "str | None"]
"""Input shapes → the first operator that differs, empty if none does; None if the network does not
run."""


@dataclass(frozen=True)
class Lengths:
    """Forward pre-hook that checks the lengths of fixed input axes.

    Attributes:
        fixed: the fixed axes.
    """

    fixed: tuple[Fixed, ...]

    def __call__(
        self, module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        """Check the inputs, whether passed by position or by name.

        Raises:
            PrunecError: an input has another length; the message names input, axis and remedy.
        """
        signature = inspect.signature(module.forward)
        given = signature.bind(*positional, **named).args
        for number, axis, length, place in self.fixed:
            shape = given[number].shape
            if shape[axis] != length:
                raise PrunecError(
                    f"input {number} has shape {tuple(shape)}, but its axis {axis} is fixed at "
                    f"length {length}: the network loops over it, or computes with it as "
                    f"a number ({place})",
                    remedy=f"Pass length {length}, or compile the network with an example of "
                    "the other length.",
                )


def insist(compact: GraphModule, fixed: tuple[Fixed, ...]) -> None:
    """Make a compact network raise for other lengths, and record the fixed axes in its ``meta``."""
    compact.meta[_LENGTHS] = fixed
    if fixed:
        compact.register_forward_pre_hook(Lengths(fixed), with_kwargs=True)


def carried(module: nn.Module) -> tuple[Fixed, ...] | None:
    """Return the fixed axes recorded in a compact network; None if they must be determined.

    They must also be determined if a layer of another kind was put into a compact network.
    """
    if not isinstance(module, GraphModule):
        return None
    # Without the GraphModule itself, whose class is generated.
    parts = list(module.modules())[1:]
    own = all(type(part).__module__.startswith(_LAYERS) for part in parts)
    fixed: tuple[Fixed, ...] | None = module.meta.get(_LENGTHS) if own else None
    return fixed


_LENGTHS = "prunec: lengths"
_LAYERS = "torch.nn.modules."
"""Module of the classes that a compact network consists of."""


def fixed_lengths(shapes: Shapes, follow: Follow, *, thorough: bool) -> tuple[Fixed, ...]:
    """Return the axes whose length a graph holds as a number.

    Axes of equal length are first changed together, like the sides of a square image; a network
    that then computes the same depends on none of them.

    Args:
        shapes: shapes of the inputs, batch first.
        follow: function that follows the network on inputs of other shapes.
        thorough: whether each axis is also changed alone, to half and to double its length.
    """
    fixed: dict[Place, str] = {}
    for length, places in _of_one_length(shapes).items():
        for other in {(length + 1) // 2, 2 * length} - {length}:
            together = _quietly(follow, _changed(shapes, places, other))
            if together == "" and not thorough:
                break
            alone = {
                place: _quietly(follow, _changed(shapes, [place], other))
                if len(places) > 1
                else together
                for place in places
            }
            dependent = {place: what for place, what in alone.items() if what}
            if together and not dependent:
                dependent = dict.fromkeys(places, together)
            fixed = dependent | fixed
            if together is not None and not thorough:
                break
    return tuple(
        (number, axis, shapes[number][axis], fixed[number, axis]) for number, axis in sorted(fixed)
    )


def _quietly(follow: Follow, shapes: Shapes) -> str | None:
    """Follow a network without the messages that torch prints where a trace fails."""
    with contextlib.redirect_stderr(io.StringIO()):
        return follow(shapes)


def _of_one_length(shapes: Shapes) -> dict[int, list[Place]]:
    places: dict[int, list[Place]] = {}
    for number, shape in enumerate(shapes):
        for axis, length in enumerate(shape[1:], 1):
            places.setdefault(length, []).append((number, axis))
    return places


def _changed(shapes: Shapes, places: list[Place], length: int) -> Shapes:
    return tuple(
        tuple(length if (i, axis) in places else n for axis, n in enumerate(shape))
        for i, shape in enumerate(shapes)
    )
