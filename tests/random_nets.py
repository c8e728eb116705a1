"""Networks as plain data that a person can read when one of them fails, and their modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from masks import randomise
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS = {
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "hardswish": F.hardswish,
    "softplus": F.softplus,
    "gelu": F.gelu,
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "masked": lambda x: x * (x > 0.1),
    "chosen": lambda x: torch.where(x < 0.2, 0.3 - x, x),
    "log-sigmoid": F.logsigmoid,
}
POOLS = {
    "max": lambda x: F.max_pool2d(x, 3, 1, 1),
    "average": lambda x: F.avg_pool2d(x, 3, 1, 1),
    "average-inside": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "halved": lambda x: F.max_pool2d(x, 2, ceil_mode=True),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, 4),
    "padded-max": lambda x: F.max_pool2d(F.pad(x, (2, 0, 1, 1)), 3, 1),
    "padded-average": lambda x: F.avg_pool2d(F.pad(x, (1, 1, 2, 0), value=0.4), 3, 1),
    "standardised": lambda x: (
        (x - x.mean((2, 3), keepdim=True)) * (x.var((2, 3), keepdim=True) + 1).rsqrt()
    ),
    "shifted": lambda x: F.pad(x, (1, -1)),
}
PADS: dict[str, dict[str, object]] = {
    "zeros": {},
    "ones": {"value": 1.0},
    "reflect": {"mode": "reflect"},
    "replicate": {"mode": "replicate"},
}
INPUTS = (3, 2)  # channels of the first input, and of the second


@dataclass(frozen=True)
class Step:
    """One value computed from earlier ones.

    ``conv`` takes (out, kernel, groups, bias[, stride, dilation, padding]), ``transposed`` (out,
    kernel, groups, bias, stride, padding), ``linear`` and ``padded`` what is in :func:`_part`;
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
    """

    steps: tuple[Step, ...]
    heads: tuple[int, ...] = ()
    raw: tuple[int, ...] = ()
    seed: int = 0
    flat: tuple[int, ...] = ()
    inputs: int = 1
    size: int = 7

    def shapes(self) -> list[tuple[int, int]]:
        """Channels and edge of every value."""
        found = [(channels, self.size) for channels in INPUTS[: self.inputs]]
        for step in self.steps:
            found.append(shape_after(step, found))
        return found

    def example(self) -> tuple[Tensor, ...]:
        """Two samples of the inputs."""
        generator = torch.Generator().manual_seed(self.seed)
        return tuple(
            torch.randn(2, c, self.size, self.size, dtype=torch.float64, generator=generator)
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


class RandomNet(nn.Module):
    """The module of a wiring: float64, eval, seeded, norms randomised."""

    def __init__(self, wiring: Wiring) -> None:
        super().__init__()
        self.wiring = wiring
        shapes = wiring.shapes()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(wiring.seed)
            self.parts = nn.ModuleDict(
                {
                    str(n): part
                    for n, step in enumerate(wiring.steps, wiring.inputs)
                    if (part := _part(step, shapes[step.sources[0]][0])) is not None
                }
            )
            self.heads = nn.ModuleList(nn.Linear(shapes[i][0], 3) for i in wiring.heads)
            self.flat = nn.ModuleList(
                nn.Linear(shapes[i][0] * shapes[i][1] ** 2, 3) for i in wiring.flat
            )
            randomise(self.double())
        self.eval()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        values = list(inputs)
        for number, step in enumerate(self.wiring.steps, self.wiring.inputs):
            values.append(self._compute(str(number), step, [values[i] for i in step.sources]))
        pairs = zip(self.heads, self.wiring.heads, strict=True)
        classes = tuple(head(values[i].mean((2, 3))) for head, i in pairs)
        flat = zip(self.flat, self.wiring.flat, strict=True)
        classes += tuple(head(torch.flatten(values[i], 1)) for head, i in flat)
        return classes + tuple(values[i] for i in self.wiring.raw)

    def _compute(self, number: str, step: Step, given: list[Tensor]) -> Tensor:
        x = given[0]
        match step.kind:
            case "again":
                return self.parts[str(step.options[0])](x)
            case "excite":
                return x * torch.sigmoid(self.parts[number](x.mean((2, 3), keepdim=True)))
            case "linear" | "layer-norm":
                return self.parts[number](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            case "padded":
                pad = F.pad(x, (1, 0, 2, 1), **PADS[str(step.options[2])])
                return self.parts[number](pad[:, :, 1:])
            case _ if number in self.parts:
                return self.parts[number](x)
            case _:
                return moved(step, given)


def moved(step: Step, given: list[Tensor]) -> Tensor:
    """What a step without parameters computes."""
    return MOVES[step.kind](step, *given)


def _halves(step: Step, x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    return a * torch.sigmoid(b) if step.options[0] else a + b


def _swapped(step: Step, x: Tensor) -> Tensor:
    a, b = torch.split(x, [x.shape[1] // 2, x.shape[1] - x.shape[1] // 2], 1)
    return torch.cat([b, a], 1)


def _widened(step: Step, x: Tensor) -> Tensor:
    p = int(step.options[0])
    return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, p, p))


def _interpolated(step: Step, x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode=step.kind)


def _shuffled(step: Step, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    groups = int(step.options[0])
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


MOVES: dict[str, Callable[..., Tensor]] = {
    "act": lambda step, x: ACTIVATIONS[str(step.options[0])](x),
    "pool": lambda step, x: POOLS[str(step.options[0])](x),
    "add": lambda step, x, y: x + y,
    "times": lambda step, x, y: x * y,
    "cat": lambda step, *given: torch.cat(given, 1),
    "stack": lambda step, *given: torch.stack(given, 2).flatten(1, 2),
    "slice": lambda step, x: x[:, int(step.options[0]) : int(step.options[1])],
    "halves": _halves,
    "swap": _swapped,
    "widen": _widened,
    "pixel-shuffle": lambda step, x: F.pixel_shuffle(x, 2),
    "pixel-unshuffle": lambda step, x: F.pixel_unshuffle(x, 2),
    "bilinear": _interpolated,
    "nearest": _interpolated,
    "softmax": lambda step, x: x.softmax(1),
    "channel-shuffle": lambda step, x: F.channel_shuffle(x, int(step.options[0])),
    "shuffle": _shuffled,
}


class Attention(nn.Module):
    """Attention of whole heads over the pixels, added to what came in."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.q, self.k, self.v = (nn.Linear(channels, channels) for _ in range(3))
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        shape = (n, h * w, self.heads, c // self.heads)
        q, k, v = (p(tokens).view(shape).transpose(1, 2) for p in (self.q, self.k, self.v))
        mixed = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        mixed = self.out(mixed.transpose(1, 2).reshape(n, h * w, c))
        return x + mixed.transpose(1, 2).reshape(n, c, h, w)


def _part(step: Step, i: int) -> nn.Module | None:
    """The module of a step that has one, for ``i`` channels."""
    make = PARTS.get(step.kind)
    return make(step, i) if make else None


def _convolution(step: Step, i: int) -> nn.Module:
    o, k, groups, bias, stride, dilation, padding = convolution_options(step)
    return nn.Conv2d(i, o, k, stride, padding, dilation, groups, bias=bool(bias))


def _transposed(step: Step, i: int) -> nn.Module:
    o, k, groups, bias, stride, padding = map(int, step.options)
    return nn.ConvTranspose2d(i, o, k, stride, padding, 0, groups, bias=bool(bias))


def _padded(step: Step, i: int) -> nn.Module:
    """Options: out, bias, how."""
    return nn.Conv2d(i, int(step.options[0]), (3, 2), bias=bool(step.options[1]))


def _linear(step: Step, i: int) -> nn.Module:
    """Options: out, width inside."""
    o, inner = map(int, step.options)
    return nn.Sequential(nn.Linear(i, inner), nn.GELU(), nn.Linear(inner, o))


def _excitation(step: Step, i: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(i, 3, 1), nn.ReLU(), nn.Conv2d(3, i, 1))


PARTS: dict[str, Callable[[Step, int], nn.Module]] = {
    "conv": _convolution,
    "transposed": _transposed,
    "padded": _padded,
    "linear": _linear,
    "norm": lambda step, i: nn.BatchNorm2d(i),
    "group-norm": lambda step, i: nn.GroupNorm(int(step.options[0]), i),
    "instance-norm": lambda step, i: nn.InstanceNorm2d(i, affine=True),
    "layer-norm": lambda step, i: nn.LayerNorm(i),
    "prelu": lambda step, i: nn.PReLU(i),
    "excite": _excitation,
    "attention": lambda step, i: Attention(i, int(step.options[0])),
}
