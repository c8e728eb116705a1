"""The zoo of awkward networks as finished files: as small as the compiler makes each network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from foreign import exported
from masks import masked
from modes import MODES
from sampling import sampled
from torch.onnx.errors import OnnxExporterError
from zoo import ZOO

from prunec.cost.onnx_graph import count_known
from prunec.cost.torch_graph import count
from prunec.deploy.compaction.compact import compact_model
from prunec.deploy.compaction.proof import differences, random_inputs, runnable
from prunec.errors import PrunecError
from prunec.graph.channels.groups import channel_groups
from prunec.graph.rewriting.compile import compile_module

OPSETS = (9, 11, 13, 14, 17)
CASES = [(name, list(MODES)[i % len(MODES)]) for i, name in enumerate(ZOO)]
MARGIN = 1.02  # of MACs: what the file decides in another order

LARGER = {
    "chunk": "a chunk of an odd count is cut by sizes that the file computes",
    "strided-slice": "Slice by computed numbers",
    "writes-through-views": "ScatterND",
    "statistics-beside-means": "TopK",
    "convolution-then-gru": "GRU",
    "lstm": "LSTM",
    "lstm-of-two-layers-and-directions": "LSTM",
    "gru-of-two-layers": "GRU",
    "rnn-of-two-directions": "RNN",
    "rnn-time-first": "RNN",
    "gru-cell-step-by-step": "states of zeros are made from sizes",
    "fastgrnn-of-low-rank": "states of zeros are made from sizes",
    "fastgrnn-of-whole-matrices": "states of zeros are made from sizes",
    "einsum-with-a-parameter": "Einsum",
    "attention-module": "LayerNormalization in parts, which takes means over channels",
    "class-token": "Expand",
    "mixer": "LayerNormalization in parts, which takes means over channels",
    "patches": "Gather of windows",
    "pooled-context": "Expand",
    "repeated-channels": "Expand",
    "maximum-of-halves": "a chunk is cut by sizes that the file computes",
    "shuffle-net-v2": "a chunk is cut by sizes that the file computes",
    "layer-norm-channels-last": "LayerNormalization in parts, which takes means over channels",
    "in-place-on-view": "ScatterND",
    "written-at-fixed-places": "ScatterND",
    "lstm-cell-step-by-step": "states of zeros are made from sizes",
    "low-rank-layers": "a product of two stored matrices is a constant, not a kernel",
    "attention-by-einsum": "Einsum",
    "embedding": "Gather by computed numbers",
    "split": "taps of a kernel that are zero stay",
    "shared-norm": "taps of a kernel that are zero stay",
    "rnn-cell-beside-convolutions": "states of zeros are made from sizes",
    "layer-without-its-bias": "constants that a border makes uneven stay",
    "zeros-beside-channels": "a slice of channels that is empty keeps one",
    "in-place": "taps of a kernel that are zero stay",
    "unit-length-over-channels": "Expand to a computed size",
    "position-bias": "a bias for each position meets channels as a transposed matrix",
    "swish-border": "taps of a kernel that are zero stay",
    "average-with-ceiling": "taps of a kernel that are zero stay",
    "transposed": "taps of a kernel that are zero stay",
    "chain": "taps of a kernel that are zero stay",
    "shared-on-two-branches": "taps of a kernel that are zero stay",
    "bilinear": "constants that a border makes uneven stay",
    "sigmoid-border": "constants that a border makes uneven stay",
    "transposed-in-one-dimension": "constants that a border makes uneven stay",
    "transposed-volume": "constants that a border makes uneven stay",
}
"""Files that keep channels which the network itself loses: what holds them."""


@pytest.mark.parametrize(("name", "mode"), sampled(CASES, 24, 8))
def test_a_file_is_as_small_as_the_network_and_equal(name: str, mode: str) -> None:
    module, example = ZOO[name]()
    masks = MODES[mode](module, channel_groups(module, example), 0.5, 7)
    network = masked(module, masks).float().eval()
    inputs = tuple(x.float() if x.is_floating_point() else x for x in example)
    try:
        model = exported(network, inputs, OPSETS[len(name) % len(OPSETS)])
        batches = runnable(model, random_inputs(model, {}, None))
    except (OnnxExporterError, RuntimeError, TypeError, PrunecError) as error:
        pytest.skip(f"not exported, or not run by onnxruntime: {type(error).__name__}")
    compacted = compact_model(model)
    assert all(one.share <= 1 for one in differences(model, compacted.model, batches))
    assert not compact_model(compacted.model).changed
    if name not in LARGER:
        least = count(compile_module(network, inputs).module, inputs).macs
        assert count_known(compacted.model).macs <= MARGIN * least


def test_the_reason_for_a_file_that_stays_larger_is_reported() -> None:
    """Unsupported operators are named with their place."""
    module, example = ZOO["convolution-then-gru"]()
    network = module.float().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter[: len(parameter) // 2] = 0
    model = exported(network, tuple(x.float() for x in example), 14)
    because = compact_model(model).because
    assert any("GRU" in why and "is not understood" in why for why in because), because
    assert np.isfinite(sum(because.values()))
