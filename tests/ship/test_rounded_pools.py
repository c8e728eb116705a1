"""Pooling that rounds up: the file has torch's windows, under onnxruntime and in C."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_nets import distance, exported, need_compiler
from torch import Tensor, nn

import prunec
from prunec.errors import PassError


class Pools(nn.Module):
    """Several poolings of one input, side by side."""

    def __init__(self, pools: Sequence[nn.Module]) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 1)
        self.pools = nn.ModuleList(pools)

    def forward(self, x: Tensor) -> list[Tensor]:
        y = self.first(x)
        return [pool(y) for pool in self.pools]


def written(pools: Sequence[nn.Module], x: Tensor, path: Path) -> tuple[Pools, list[Tensor]]:
    """Export the poolings; return them, and the file's outputs under onnxruntime."""
    torch.manual_seed(0)
    net = Pools(pools).eval()
    prunec.export_onnx(net, x, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return net, [torch.from_numpy(y) for y in session.run(None, {"input": x.numpy()})]


@st.composite
def poolings(draw: st.DrawFn, size: tuple[int, int]) -> nn.Module:
    def pair(least: int, most: Sequence[int]) -> tuple[int, int]:
        low, high = (draw(st.integers(least, max(least, limit))) for limit in most)
        return low, high

    kernel = pair(1, (4, 4))
    padding = pair(0, (kernel[0] // 2, kernel[1] // 2))
    stride = pair(1, (6, 6))
    room = [s + 2 * p - 1 for s, p in zip(size, padding, strict=True)]
    if draw(st.booleans()):
        most = [r // (k - 1) if k > 1 else 3 for r, k in zip(room, kernel, strict=True)]
        dilation = pair(1, [min(3, m) for m in most])
        return nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=True)
    counted = draw(st.booleans())
    return nn.AvgPool2d(kernel, stride, padding, ceil_mode=True, count_include_pad=counted)


@st.composite
def several(draw: st.DrawFn) -> tuple[tuple[int, int], list[nn.Module]]:
    size = draw(st.integers(4, 9)), draw(st.integers(4, 9))
    return size, draw(st.lists(poolings(size), min_size=4, max_size=4))


@pytest.mark.slow
@given(several())
@settings(deadline=None, max_examples=8)
def test_every_pooling_has_the_windows_of_torch(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[tuple[int, int], list[nn.Module]]
) -> None:
    (height, width), pools = case
    x = torch.randn(2, 1, height, width)
    path = tmp_path_factory.mktemp("pools") / "net.onnx"
    try:
        net, actual = written(pools, x, path)
    except PassError:
        return  # refused: see the last test
    for pool, ours, theirs in zip(net.pools, net(x), actual, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-6, msg=str(pool))


LEFT_OUT = (
    nn.MaxPool2d(2, 3, 1, ceil_mode=True),
    nn.MaxPool2d(1, 2, ceil_mode=True),
    nn.MaxPool2d((2, 3), (3, 2), (1, 0), ceil_mode=True),
    nn.AvgPool2d(2, 3, 1, ceil_mode=True),
    nn.AvgPool2d(2, 3, 1, ceil_mode=True, count_include_pad=False),
    nn.AvgPool2d((2, 3), (3, 2), (1, 0), ceil_mode=True, count_include_pad=False),
)
"""Poolings of 4×6 values of which torch leaves out a last window."""


@pytest.mark.slow
@pytest.mark.parametrize("opset", [9, 18, 22])
def test_a_last_window_in_the_padding_is_left_out(tmp_path: Path, opset: int) -> None:
    net = Pools(LEFT_OUT).eval()
    x, path = torch.randn(2, 1, 4, 6), tmp_path / "net.onnx"
    prunec.export_onnx(net, x, path, opset=opset)
    assert prunec.verify(net, path, example_inputs=x).passed
    pools = [node for node in onnx.load(path).graph.node if node.op_type.endswith("Pool")]
    assert len(pools) == len(LEFT_OUT)
    assert not any(a.name == "ceil_mode" and a.i for node in pools for a in node.attribute)


@pytest.mark.slow
@need_compiler
def test_c_leaves_out_the_same_windows(tmp_path: Path) -> None:
    x = torch.randn(1, 1, 4, 6)
    path = exported(Pools(LEFT_OUT), (torch.cat([x, x]),), tmp_path)
    assert max(distance(path, [x.numpy()])) < 1e-6


def test_windows_that_no_pads_express_are_refused(tmp_path: Path) -> None:
    """Left out along one axis, beyond the padding along the other, and the padding counts."""
    pool = nn.AvgPool2d((1, 3), (3, 2), (0, 0), ceil_mode=True)
    with pytest.raises(PassError, match=r"left out.*reaches beyond the padding") as caught:
        prunec.export_onnx(Pools([pool]).eval(), torch.randn(2, 1, 5, 6), tmp_path / "x.onnx")
    assert "ceil_mode" in caught.value.remedy
