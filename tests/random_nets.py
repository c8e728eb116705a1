"""Networks drawn at random, as plain data that a person can read when one of them fails."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from masks import randomise
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS = {
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "hardswish": F.hardswish,
    "softplus": F.softplus,
    "leaky": lambda x: F.leaky_relu(x, 0.1),
}
POOLS = {
    "max": lambda x: F.max_pool2d(x, 3, 1, 1),
    "average": lambda x: F.avg_pool2d(x, 3, 1, 1),
    "average-inside": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
}


@dataclass(frozen=True)
class Step:
    """One value computed from earlier ones.

    ``conv`` takes (out, kernel, groups, bias); ``again`` the number of the step whose module it
    uses a second time; ``shuffle`` its groups; ``slice`` (first, last); the rest a name or nothing.
    """

    kind: str
    sources: tuple[int, ...]
    options: tuple[int | str, ...] = ()


@dataclass(frozen=True)
class Wiring:
    """A network: value 0 has 3 channels; ``heads`` are classified, ``raw`` values are outputs."""

    steps: tuple[Step, ...]
    heads: tuple[int, ...]
    raw: tuple[int, ...]
    seed: int

    def channels(self) -> list[int]:
        """Channels of every value."""
        counts = [3]
        for step in self.steps:
            counts.append(_channels_after(step, counts))
        return counts


def _channels_after(step: Step, counts: list[int]) -> int:
    first = counts[step.sources[0]]
    if step.kind == "conv":
        return int(step.options[0])
    if step.kind == "cat":
        return sum(counts[i] for i in step.sources)
    if step.kind == "slice":
        return int(step.options[1]) - int(step.options[0])
    return first


class RandomNet(nn.Module):
    """The module of a wiring: float64, eval, seeded, norms randomised; images are 7×7."""

    def __init__(self, wiring: Wiring) -> None:
        super().__init__()
        self.wiring = wiring
        counts = wiring.channels()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(wiring.seed)
            self.parts = nn.ModuleDict(
                {
                    str(n): part
                    for n, step in enumerate(wiring.steps, 1)
                    if (part := _part(step, counts[step.sources[0]])) is not None
                }
            )
            self.heads = nn.ModuleList(nn.Linear(counts[i], 3) for i in wiring.heads)
            randomise(self.double())
        self.eval()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        values = [x]
        for number, step in enumerate(self.wiring.steps, 1):
            values.append(self._compute(str(number), step, [values[i] for i in step.sources]))
        pairs = zip(self.heads, self.wiring.heads, strict=True)
        classes = tuple(head(values[i].mean((2, 3))) for head, i in pairs)
        return classes + tuple(values[i] for i in self.wiring.raw)

    def _compute(self, number: str, step: Step, given: list[Tensor]) -> Tensor:
        x = given[0]
        match step.kind:
            case "conv" | "norm":
                return self.parts[number](x)
            case "again":
                return self.parts[str(step.options[0])](x)
            case "excite":
                return x * torch.sigmoid(self.parts[number](x.mean((2, 3), keepdim=True)))
            case "act":
                return ACTIVATIONS[str(step.options[0])](x)
            case "pool":
                return POOLS[str(step.options[0])](x)
            case "add":
                return x + given[1]
            case "times":
                return x * given[1]
            case "cat":
                return torch.cat(given, 1)
            case "slice":
                return x[:, int(step.options[0]) : int(step.options[1])]
            case _:
                n, c, h, w = x.shape
                groups = int(step.options[0])
                return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def _part(step: Step, i: int) -> nn.Module | None:
    if step.kind == "norm":
        return nn.BatchNorm2d(i)
    if step.kind == "excite":
        return nn.Sequential(nn.Conv2d(i, 3, 1), nn.ReLU(), nn.Conv2d(3, i, 1))
    if step.kind != "conv":
        return None
    o, k, groups, bias = (int(option) for option in step.options)
    return nn.Conv2d(i, o, k, padding=k // 2, groups=groups, bias=bool(bias))


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


@st.composite
def _steps(draw: st.DrawFn, counts: list[int], steps: list[Step]) -> Step:
    """One more step that fits the values there are; later values are likelier sources."""
    recent = st.integers(max(0, len(counts) - 3), len(counts) - 1)
    source = draw(recent)
    c = counts[source]
    twins = [n for n, other in enumerate(counts) if other == c and n != source]
    modules = [
        n for n, s in enumerate(steps, 1) if s.kind == "conv" and counts[s.sources[0]] == c
        and counts[n] == c
    ]  # fmt: skip
    kinds = ["conv", "conv", "norm", "act", "act", "pool", "cat"]
    kinds += ["add", "add", "times"] * bool(twins) + ["again"] * bool(modules)
    kinds += ["slice"] * (c >= 4) + ["shuffle", "depthwise", "excite"] * (source > 0)
    kind = draw(st.sampled_from(kinds))
    match kind:
        case "conv":
            o = draw(st.sampled_from([4, 6, 8]))
            groups = draw(st.sampled_from([g for g in _divisors(c) if o % g == 0]))
            bias = draw(st.integers(0, 1))
            return Step("conv", (source,), (o, draw(st.sampled_from([1, 3])), groups, bias))
        case "depthwise":
            return Step("conv", (source,), (c * draw(st.sampled_from([1, 1, 2])), 3, c, 0))
        case "again":
            return Step("again", (source,), (draw(st.sampled_from(modules)),))
        case "act":
            return Step("act", (source,), (draw(st.sampled_from(sorted(ACTIVATIONS))),))
        case "pool":
            return Step("pool", (source,), (draw(st.sampled_from(sorted(POOLS))),))
        case "add" | "times":
            return Step(kind, (source, draw(st.sampled_from(twins))))
        case "cat":
            return Step("cat", (source, draw(recent)))
        case "slice":
            first = draw(st.integers(0, c // 2 - 1))
            return Step("slice", (source,), (first, first + c // 2))
        case "shuffle":
            return Step("shuffle", (source,), (draw(st.sampled_from(_divisors(c))),))
        case _:
            return Step(kind, (source,))


@st.composite
def wirings(draw: st.DrawFn) -> Wiring:
    """Networks of up to 12 steps; every value nobody reads gets a head, a map may be an output."""
    steps = [Step("conv", (0,), (draw(st.sampled_from([4, 6, 8])), 3, 1, 0))]
    counts = [3, int(steps[0].options[0])]
    for _ in range(draw(st.integers(2, 11))):
        step = draw(_steps(counts, steps))
        if _channels_after(step, counts) > 24:
            continue
        steps.append(step)
        counts.append(_channels_after(step, counts))
    others = st.lists(st.integers(1, len(steps)), max_size=1)
    raw = tuple(draw(st.one_of(st.just([]), st.just([]), others)))
    read = {source for step in steps for source in step.sources}
    heads = [n for n in range(1, len(counts)) if n not in read] + draw(others)
    return Wiring(tuple(steps), tuple(heads), raw, draw(st.integers(0, 999)))
