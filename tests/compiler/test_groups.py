"""Channel groups: as many channels are free as the mathematics of each network allows."""

from __future__ import annotations

import pytest
from sampling import sampled
from zoo import ZOO

from prunec.graph.channels.groups import channel_groups

# Counted by hand: every channel that could be cut alone, joined ones once, outputs left out. It is
# test_laws.py that compares them: it has the groups of every network at hand.
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
    "grouped-reads-concat": 4 + 8 + 6,
    "gated-halves": 8 + 10,
    "strided-slice": 8 + 8,
    "permuted-by-index": 8 + 8,
    "selected-by-number": 7 + 1 + 6,
    "spatial-gate": 8 + 6,
    "group-norm": 8 + 3 + 8,
    "group-norm-of-concat": 6 + 4 + 8,
    "layer-norm-channels-last": 16,
    "instance-norm": 8 + 10,
    "running-instance-norm": 8 + 10,
    "literal-view": 8 + 8,
    "pixel-shuffle": 4 + 8,
    "pixel-unshuffle": 4 + 8,
    "repeated-channels": 6 + 8,
    "zeros-beside-channels": 6 + 4 + 8,
    "unflatten": 4 + 10 + 6 + 8,
    "stochastic-depth": 8 + 10,
    "dropout": 8 + 10,
    "in-place": 8 + 6,
    "in-place-on-view": 8 + 8,
    "writes-through-views": 8 + 8,
    "overwritten-shortcut": 8,
    "scalar-parameter": 8,
    "frozen-norm": 8 + 10,
    "conv-as-norm-reader": 8 + 6,
    "two-layers-one-weight": 8,
    "two-convolutions-one-weight": 8 + 10,
    "product-with-a-parameter": 6 + 8 + 10,
    "einsum-with-a-parameter": 8 + 10,
    "interleaved-by-stack": 6 + 8 + 8,
    "unbound-channels": 4 + 1 + 8,
    "preprocessing-inside": 8 + 8,
    "shared-norm": 6 + 8 + 8,
    "weighted-sum-of-stages": 8 + 6,
    "attention": 8 + 2,
    "attention-module": 8 + 2 + 12,
    "attention-of-one-projection": 8 + 2,
    "attention-by-einsum": 8 + 2,
    "shifted-windows": 8 + 12,
    "mixer": 8 + 12,
    "embedding": 8 + 6,
    "class-token": 8,
    "lstm": 8 + 6 + 8,
    "convolution-then-gru": 8 + 6 + 5,
    "lstm-of-two-layers-and-directions": 8 + 4 * 6,
    "lstm-with-projection": 8 + 8 + 4,
    "gru-of-two-layers": 8 + 2 * 6,
    "rnn-of-two-directions": 8 + 2 * 5,
    "rnn-time-first": 8 + 6,
    "reflect-padding": 10 + 8,
    "same-padding": 8 + 8 + 6,
    "asymmetric-padding": 8 + 8,
    "average-counting-padding": 8 + 10 + 6,
    "max-pool-with-ceiling": 8 + 10 + 6,
    "adaptive-pool": 8,
    "transposed-grouped": 8 + 12,
    "transposed-in-one-dimension": 6 + 8 + 6,
    "transposed-volume": 6 + 4,
    "dilated-and-transposed": 8 + 6 + 8,
    "bilinear": 8 + 6,
    "nearest": 8 + 8,
    "one-dimension": 8 + 10,
    "three-dimensions": 6 + 6,
    "space-then-time": 7 + 6,
    "pooled-context": 8 + 6 + 6 + 8,
    "patches": 6 + 10,
    "chain-with-bias-no-norm": 8 + 12 + 6,
    "dead-branch": 8 + 6,
    "dict-output": 10,
    "two-inputs-dict-output": 8 + 10,
    "output-is-hidden": 8 + 10,
}
# What must stay, and a word of the reason that is given.
PINNED = {
    "chain": (5, "output"),
    "output-is-hidden": (6, "output"),
    "softmax-over-channels": (10, "softmax"),
    "running-sum-over-channels": (10, "cumsum"),
    "window-over-channels": (10, "max_pool3d"),
    "local-response-norm": (10, "avg_pool3d"),
    "sorted-channels": (10, "sort"),
    "layer-norm-channels-last": (8, "layer_norm"),
    "channels-as-pixels": (8, "runs over channels"),
    "tied-weights": (8, "another kind of kernel"),
    "channel-attention": (4, "outer product"),
    "mixer": (10, "mixes positions"),
    "embedding": (16, "looks up its rows"),
}


@pytest.mark.parametrize("name", sampled(PINNED, 3))
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
