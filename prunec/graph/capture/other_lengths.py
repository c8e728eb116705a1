"""Axes of a network's inputs whose length is a number in its graph: an error at any other length.

A loop over time steps, a division by ``x.shape[1]``, a grid of as many points: what Python made of
a length, the graph holds as a number. The network is therefore followed at other lengths too. Where
it then does something else, the graph holds for one length only; where it does not run at all, the
length is nobody's choice.
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
"""Number of an input, its axis, the length that it has to have, what depends on it."""
Place = tuple[int, int]
"""Number of an input, and one of its axes."""
Shapes = tuple[tuple[int, ...], ...]
Follow = Callable[[Shapes], "str | None"]
"""Inputs of other shapes → what the network then does otherwise, empty where it does the same; None
where it does not run on them."""


@dataclass(frozen=True)
class Lengths:
    """A hook before a forward pass: axes of its inputs that have one length only.

    Attributes:
        fixed: those axes.
    """

    fixed: tuple[Fixed, ...]

    def __call__(
        self, module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        """Raise for another length, whether inputs are given by place or by name.

        Raises:
            PrunecError: an input has one; says which and what mends it.
        """
        signature = inspect.signature(module.forward)
        given = signature.bind(*positional, **named).args
        for number, axis, length, place in self.fixed:
            shape = given[number].shape
            if shape[axis] != length:
                raise PrunecError(
                    f"input {number} has shape {tuple(shape)}, but its axis {axis} is fixed at "
                    f"length {length}: the network takes it step by step, or computes with it as "
                    f"a number ({place})",
                    remedy=f"Give it length {length}, or compile the network with an example of "
                    "the other length.",
                )


def insist(compact: GraphModule, fixed: tuple[Fixed, ...]) -> None:
    """Let a compact network raise for other lengths, and remember that they were looked for."""
    compact.meta[_LENGTHS] = fixed
    if fixed:
        compact.register_forward_pre_hook(Lengths(fixed), with_kwargs=True)


def carried(module: nn.Module) -> tuple[Fixed, ...] | None:
    """The lengths that a compact network insists on; None where they have to be looked for.

    They have to, too, where somebody has put a layer of another kind into a compact network.
    """
    if not isinstance(module, GraphModule):
        return None
    parts = list(module.modules())[1:]
    own = all(type(part).__module__.startswith(_LAYERS) for part in parts)
    fixed: tuple[Fixed, ...] | None = module.meta.get(_LENGTHS) if own else None
    return fixed


_LENGTHS = "prunec: lengths"
_LAYERS = "torch.nn.modules."
"""Where the layers of a compact network are from, and the folders that keep their names."""


def fixed_lengths(shapes: Shapes, follow: Follow, *, thorough: bool) -> tuple[Fixed, ...]:
    """Find the axes of which a graph holds the length as a number.

    Axes of one length are changed together first, as the sides of a square image are; a network
    that then does the same depends on none of them.

    Args:
        shapes: of the inputs, batch first.
        follow: follows the network on inputs of other shapes.
        thorough: whether each axis is changed alone too, to half and to double its length.
    """
    found: dict[Place, str] = {}
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
            guilty = {place: what for place, what in alone.items() if what}
            if together and not guilty:
                guilty = dict.fromkeys(places, together)
            found = guilty | found
            if together is not None and not thorough:
                break
    return tuple(
        (number, axis, shapes[number][axis], found[number, axis]) for number, axis in sorted(found)
    )


def _quietly(follow: Follow, shapes: Shapes) -> str | None:
    """Follow a network; a traced one prints where it fails, which is no failure here."""
    with contextlib.redirect_stderr(io.StringIO()):
        return follow(shapes)


def _of_one_length(shapes: Shapes) -> dict[int, list[Place]]:
    found: dict[int, list[Place]] = {}
    for number, shape in enumerate(shapes):
        for axis, length in enumerate(shape[1:], 1):
            found.setdefault(length, []).append((number, axis))
    return found


def _changed(shapes: Shapes, places: list[Place], length: int) -> Shapes:
    return tuple(
        tuple(length if (i, axis) in places else n for axis, n in enumerate(shape))
        for i, shape in enumerate(shapes)
    )
