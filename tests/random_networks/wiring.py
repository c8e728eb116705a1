"""A network as plain data: its steps, its outputs, and the shape of every value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

INPUTS = (3, 2)  # channels of the first input, and of the second


@dataclass(frozen=True)
class Step:
    """One value computed from earlier ones.

    ``conv`` takes (out, kernel, groups, bias[, stride, dilation, padding]), ``transposed`` (out,
    kernel, groups, bias, stride, padding), ``linear`` and ``padded`` what is in ``modules``;
    ``again`` the number of the step whose module it uses a second time; ``shuffle``,
    ``channel-shuffle``, ``group-norm`` and ``attention`` their groups or heads; ``slice`` (first,
    last); ``widen`` the zero channels on either side; the rest a name or nothing.
    """

    kind: str
    sources: tuple[int, ...]
    options: tuple[int | str, ...] = ()


@dataclass(frozen=True)
class Wiring:
    """A network on square images.

    Values 0 … inputs − 1 are the inputs, then one for each step. ``heads`` are averaged and
    classified, ``flat`` are flattened and classified, ``raw`` values are outputs as they are.
    ``form`` is what the outputs are returned as; a network that ``ran`` met a batch of four before,
    one that is ``starred`` takes its inputs as one argument.
    """

    steps: tuple[Step, ...]
    heads: tuple[int, ...] = ()
    raw: tuple[int, ...] = ()
    seed: int = 0
    flat: tuple[int, ...] = ()
    inputs: int = 1
    size: int = 7
    form: str = "tuple"
    ran: bool = False
    starred: bool = False

    def uses(self, kind: str, *names: str) -> bool:
        """Return whether a step is of a kind, and of one of the names if names are given."""
        return any(s.kind == kind and (not names or s.options[0] in names) for s in self.steps)

    def shapes(self) -> list[tuple[int, int]]:
        """Channels and edge of every value."""
        actual = [(channels, self.size) for channels in INPUTS[: self.inputs]]
        for step in self.steps:
            actual.append(shape_after(step, actual))
        return actual

    def example(self, batch: int = 2) -> tuple[Tensor, ...]:
        """Samples of the inputs."""
        generator = torch.Generator().manual_seed(self.seed)
        return tuple(
            torch.randn(batch, c, self.size, self.size, dtype=torch.float64, generator=generator)
            for c in INPUTS[: self.inputs]
        )


def shape_after(step: Step, shapes: list[tuple[int, int]]) -> tuple[int, int]:
    """Channels and edge of what a step computes."""
    c, size = shapes[step.sources[0]]
    if step.kind == "cat":
        return sum(shapes[i][0] for i in step.sources), size
    after = AFTER.get(step.kind)
    return after(c, size, step) if after else (c, size)


def _after_convolution(c: int, size: int, step: Step) -> tuple[int, int]:
    out, k, _, _, stride, dilation, padding = convolution_options(step)
    return out, (size + 2 * padding - dilation * (k - 1) - 1) // stride + 1


def _after_transposed(c: int, size: int, step: Step) -> tuple[int, int]:
    out, k, _, _, stride, padding = map(int, step.options)
    return out, (size - 1) * stride - 2 * padding + k


def _after_pool(c: int, size: int, step: Step) -> tuple[int, int]:
    smaller = {"halved": (size + 1) // 2, "adaptive": 4}
    return c, smaller.get(str(step.options[0]), size)


# Kinds of step that change the shape: from channels and edge of what comes in to those that go out.
AFTER: dict[str, Callable[[int, int, Step], tuple[int, int]]] = {
    "conv": _after_convolution,
    "transposed": _after_transposed,
    "linear": lambda c, size, step: (int(step.options[0]), size),
    "padded": lambda c, size, step: (int(step.options[0]), size),
    "bordered": lambda c, size, step: (c, size + 2),
    "stack": lambda c, size, step: (2 * c, size),
    "slice": lambda c, size, step: (int(step.options[1]) - int(step.options[0]), size),
    "halves": lambda c, size, step: (c // 2, size),
    "widen": lambda c, size, step: (c + 2 * int(step.options[0]), (size + 1) // 2),
    "pixel-shuffle": lambda c, size, step: (c // 4, 2 * size),
    "pixel-unshuffle": lambda c, size, step: (4 * c, size // 2),
    "bilinear": lambda c, size, step: (c, 2 * size),
    "nearest": lambda c, size, step: (c, 2 * size),
    "pool": _after_pool,
}


def convolution_options(step: Step) -> tuple[int, ...]:
    """Out, kernel, groups, bias, stride, dilation, padding; the last three have defaults."""
    given = [int(option) for option in step.options]
    return tuple(given + [1, 1, given[1] // 2][len(given) - 4 :])
