"""Random networks: hypothesis draws them step by step, each step fitting what there is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from hypothesis import strategies as st

from random_networks.computed import COMPUTED
from random_networks.moves import ACTIVATIONS, POOLS
from random_networks.of_batch import OF_BATCH
from random_networks.outputs import FORMS
from random_networks.pads import BORDERS, PADS
from random_networks.spellings import OF_PAIRS, OF_STEPS, SPELLINGS
from random_networks.states import REFUSED, STATES
from random_networks.wiring import INPUTS, Step, Wiring, convolution_options, shape_after
from random_networks.writes import OF_TWO, WRITES

Shapes = list[tuple[int, int]]
Options = tuple[int | str, ...]
WIDEST, LARGEST = 24, 14


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def _kinds(c: int, size: int, hidden: bool, twins: bool, modules: bool) -> list[str]:
    """Steps that may follow a value; one listed twice is drawn twice as often."""
    kinds = ["conv", "conv", "strided", "norm", "act", "act", "pool", "cat", "transposed"]
    kinds += ["padded", "linear", "prelu", "bilinear", "nearest", "layer-norm", "instance-norm"]
    kinds += ["spelled", "spelled", "spelled", "computed", "computed", "state", "of-batch"]
    kinds += ["write", "write", "bordered", "bordered"]
    kinds += ["add", "add", "add", "times", "stack"] * twins + ["again", "again"] * modules
    kinds += ["slice", "swap"] * (c >= 4) + ["halves"] * (c >= 4 and c % 2 == 0)
    kinds += ["pixel-shuffle"] * (c % 4 == 0) + ["pixel-unshuffle"] * (size % 2 == 0)
    kinds += ["shuffle", "channel-shuffle", "depthwise", "depthwise"] * hidden
    kinds += ["excite", "group-norm", "widen"] * hidden
    return kinds + ["attention", "softmax"] * (hidden and size <= 7)


@st.composite
def _convolution(draw: st.DrawFn, source: int, c: int, size: int, kind: str) -> Step:
    bias = draw(st.integers(0, 1))
    if kind == "depthwise":
        o, groups = c * draw(st.sampled_from([1, 1, 2])), c
    else:
        o = draw(st.sampled_from([4, 6, 8]))
        groups = draw(st.sampled_from([g for g in _divisors(c) if o % g == 0]))
    if kind == "transposed":
        k, stride, padding = draw(st.sampled_from([(2, 2, 0), (3, 2, 1), (3, 1, 1), (3, 1, 0)]))
        return Step("transposed", (source,), (o, k, groups, bias, stride, padding))
    k = draw(st.sampled_from([1, 3, 3]))
    if kind != "strided":
        return Step("conv", (source,), (o, k, groups, bias))
    stride, dilation = draw(st.sampled_from([(2, 1), (3, 1), (1, 2), (1, 1)]))
    padding = draw(st.sampled_from([0, 1, 2]))
    if size + 2 * padding < dilation * (k - 1) + 1:
        padding = 2
    return Step("conv", (source,), (o, k, groups, bias, stride, dilation, padding))


def _padding(draw: st.DrawFn, size: int) -> Options:
    out = draw(st.sampled_from([4, 6]))
    pads = sorted(PADS) if size > 2 else ["zeros", "ones", "replicate"]
    return out, draw(st.integers(0, 1)), draw(st.sampled_from(pads))


def _grouping(draw: st.DrawFn, c: int, fewest: int) -> Options:
    """Groups or heads, each of ``fewest`` channels or more, and as many of them."""
    allowed = [d for d in _divisors(c) if d >= fewest and c // d >= fewest]
    return (draw(st.sampled_from(allowed or [1])),)


def _spellings(c: int, size: int) -> list[str]:
    """Steps that fit; those that go pixel by pixel only for few pixels."""
    left = SPELLINGS.keys() - (OF_PAIRS if c % 2 or c < 4 or size == 1 else set())
    return sorted(left - OF_STEPS if size > 4 else left)


def _rarely(rare: Collection[str], names: Iterable[str]) -> st.SearchStrategy[str]:
    """A name; one of the rare ones in a tenth of the cases."""
    usual = st.sampled_from(sorted({*names} - {*rare}))
    return st.integers(0, 9).flatmap(lambda n: usual if n else st.sampled_from(sorted(rare)))


def _slice(draw: st.DrawFn, c: int) -> Options:
    first = draw(st.integers(0, c // 2 - 1))
    return first, first + c // 2


def _options(draw: st.DrawFn, kind: str, c: int, size: int, modules: list[int]) -> Options:
    """The options of a step with one source; most kinds have none."""
    several = 1 if c % 2 else 2
    table: dict[str, Callable[[], Options]] = {
        "again": lambda: (draw(st.sampled_from(modules)),),
        "act": lambda: (draw(st.sampled_from(sorted(ACTIVATIONS))),),
        "spelled": lambda: (draw(st.sampled_from(_spellings(c, size))),),
        "computed": lambda: (draw(st.sampled_from(sorted(COMPUTED))),),
        "state": lambda: (draw(_rarely(REFUSED, STATES)),),
        "of-batch": lambda: (draw(st.sampled_from(sorted(OF_BATCH))),),
        "write": lambda: (
            draw(st.sampled_from([w for w in sorted(WRITES) if c > 1 or w not in OF_TWO])),
        ),
        "bordered": lambda: (draw(st.sampled_from(sorted(BORDERS))),),
        "pool": lambda: (draw(st.sampled_from(sorted(POOLS))),),
        "padded": lambda: _padding(draw, size),
        "linear": lambda: (draw(st.sampled_from([c, 4, 6])), 5),
        "slice": lambda: _slice(draw, c),
        "shuffle": lambda: _grouping(draw, c, 1),
        "channel-shuffle": lambda: _grouping(draw, c, 1),
        "group-norm": lambda: _grouping(draw, c, several),
        "attention": lambda: _grouping(draw, c, several),
        "halves": lambda: (draw(st.integers(0, 1)),),
        "widen": lambda: (draw(st.sampled_from([1, 2])),),
    }
    return table[kind]() if kind in table else ()


@st.composite
def _step(draw: st.DrawFn, shapes: Shapes, steps: list[Step], inputs: int) -> Step:
    """One more step that fits the values there are; later values are likelier sources."""
    recent = list(range(max(0, len(shapes) - 4), len(shapes)))
    source = draw(st.sampled_from(recent))
    c, size = shapes[source]
    twins = [n for n, shape in enumerate(shapes) if shape == (c, size) and n != source]
    modules = _fitting_modules(c, shapes, steps, inputs)
    kind = draw(st.sampled_from(_kinds(c, size, source >= inputs, bool(twins), bool(modules))))
    if kind in ("conv", "strided", "depthwise", "transposed"):
        return draw(_convolution(source, c, size, kind))
    if kind in ("add", "times", "stack", "cat"):
        others = twins if kind != "cat" else [n for n in recent if shapes[n][1] == size]
        return Step(kind, (source, draw(st.sampled_from(others))))
    return Step(kind, (source,), _options(draw, kind, c, size, modules))


def _fitting_modules(c: int, shapes: Shapes, steps: list[Step], inputs: int) -> list[int]:
    """Steps with a convolution that keeps ``c`` channels and the size, and may be used again."""
    return [
        n for n, s in enumerate(steps, inputs) if s.kind == "conv" and shapes[s.sources[0]][0] == c
        and shapes[n][0] == c and convolution_options(s)[4:] == (1, 1, int(s.options[1]) // 2)
    ]  # fmt: skip


@st.composite
def wirings(draw: st.DrawFn) -> Wiring:
    """Networks of up to 12 steps; every value nobody reads gets a head, a map may be an output."""
    inputs = draw(st.sampled_from([1, 1, 1, 2]))
    size = draw(st.sampled_from([7, 6, 8]))
    steps: list[Step] = []
    shapes: Shapes = [(c, size) for c in INPUTS[:inputs]]
    for number in range(inputs):
        o = draw(st.sampled_from([4, 6, 8]))
        steps.append(Step("conv", (number,), (o, 3, 1, 0)))
        shapes.append((o, size))
    for _ in range(draw(st.integers(2, 11))):
        step = draw(_step(shapes, steps, inputs))
        channels, edge = shape_after(step, shapes)
        if channels > WIDEST or not 1 <= edge <= LARGEST:
            continue
        steps.append(step)
        shapes.append((channels, edge))
    others = st.lists(st.integers(inputs, len(shapes) - 1), max_size=1)
    raw = tuple(draw(st.one_of(st.just([]), st.just([]), others)))
    read = {source for step in steps for source in step.sources}
    ends = [n for n in range(inputs, len(shapes)) if n not in read] + draw(others)
    flat = [n for n in ends if shapes[n][1] <= 4 and draw(st.booleans())]
    return Wiring(
        tuple(steps),
        tuple(n for n in ends if n not in flat),
        raw,
        draw(st.integers(0, 999)),
        tuple(flat),
        inputs,
        size,
        draw(st.sampled_from(sorted(FORMS))),
        draw(st.booleans()),
        draw(st.integers(0, 4)) == 4,
    )
