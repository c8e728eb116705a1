"""Channel groups: as many channels are free as the mathematics of each network allows."""

from __future__ import annotations

import pytest
from zoo import ZOO

from prunec.graph.groups import channel_groups

# Counted by hand: every channel that could be cut alone, joined ones once, outputs left out.
FREE = {
    "chain": 8 + 12 + 10,
    "norm-without-relu": 8 + 10 + 8,
    "residual": 8 + 12 + 6,
    "projection": 8 + 10 + 16,
    "residual-before-activation": 8 + 10 + 6,
    "concat": 6 + 8 + 10 + 8,
    "nested-concat": 6 + 8 + 6,
    "concat-added": 6 + 12,
    "shared-module": 8,
    "shared-on-two-branches": 8 + 6,
    "two-heads": 8 + 8,
    "two-inputs": 8 + 10,
    "depthwise": 8 + 12 + 8,
    "depthwise-multiplier": 6 + 8,
    "grouped": 12 + 16 + 12,
    "grouped-in-residual": 12 + 12 + 12,
    "shuffle": 6 + 12 + 12,
    "split": 14 + 6,
    "chunk": 16 + 8 + 8,
    "flatten-linear": 6 + 10,
    "squeeze-excite": 12 + 4 + 8,
    "squeeze-excite-by-linear": 12 + 4,
    "prelu": 8 + 10,
    "maximum-of-halves": 8 + 8,
    "dense-net": 8 + 3 * (8 + 4) + 10,
    "mobile-net-v2": 8 + 16 + 6 + 12 + 12 + 10 + 20 + 16,
    "shuffle-net-v2": 8 + 6 + 6 + 6 + 2 * (6 + 6) + 10,
    "vgg": 8 + 12 + 8 + 16,
    "resnet-with-free-shortcuts": 12 + 8 + 12 + 10,
    "u-net": 6 + 8 + 12 + 8 + 8 + 6 + 6,
    "scaled-branch": 8 + 6,
    "functional-norm": 8 + 8,
    "transposed": 8 + 10 + 6 + 4,
}
# What must stay, and a word of the reason that is given.
PINNED = {
    "chain": (5, "output"),
    "output-is-hidden": (6, "output"),
    "mean-over-channels": (10, "mean"),
    "softmax-over-channels": (10, "softmax"),
    "running-sum-over-channels": (10, "cumsum"),
    "largest-channel": (10, "amax"),
    "window-over-channels": (10, "max_pool3d"),
    "functional-convolution": (8, "weight is computed"),
}


@pytest.mark.parametrize("name", FREE)
def test_all_are_free_that_can_be_cut_alone(name: str) -> None:
    module, example = ZOO[name]()
    groups = channel_groups(module, example)
    assert sum(group.size for group in groups if not group.pinned) == FREE[name]


@pytest.mark.parametrize("name", PINNED)
def test_what_must_stay_has_a_reason(name: str) -> None:
    module, example = ZOO[name]()
    size, word = PINNED[name]
    reasons = [(g.size, g.pinned) for g in channel_groups(module, example) if g.pinned]
    assert any(word in reason and size == count for count, reason in reasons), reasons


@pytest.mark.parametrize("name", ["residual", "shuffle-net-v2", "dense-net", "transposed-grouped"])
def test_no_position_of_a_parameter_belongs_to_two_channels(name: str) -> None:
    module, example = ZOO[name]()
    state = module.state_dict()
    seen: set[tuple[str, int, int]] = set()
    for group in channel_groups(module, example):
        for cut in group.slices:
            assert len(cut.indices) == group.size
            assert cut.parameter in state
            for place in (i for places in cut.indices for i in places):
                assert (cut.parameter, cut.axis, place) not in seen
                seen.add((cut.parameter, cut.axis, place))
