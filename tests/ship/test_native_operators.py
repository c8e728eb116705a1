"""Operators beside convolutions of images: each makes what onnxruntime makes, in C."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from native_nets import Beside, distance, exported, masked, need_compiler
from torch import Tensor, nn

from prunec.errors import PassError

pytestmark = need_compiler


class Rule(nn.Module):
    """A function as a network."""

    def __init__(self, rule: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, x: Tensor) -> Tensor:
        return self.rule(x)


def put_among_zeros(x: Tensor) -> Tensor:
    wide = x.new_zeros(x.shape[0], 9, 6, 7)
    wide[:, [1, 2, 5, 7, 8, 0]] = x
    return wide[:, :, [[0, 5], [3, 1]]]


def folded(x: Tensor) -> Tensor:
    windows = F.unfold(x, (3, 2), 1, (1, 1), (2, 1))
    return F.fold(windows * 0.5, (6, 7), (3, 2), 1, (1, 1), (2, 1))


def sampled(x: Tensor, mode: str, padding: str) -> Tensor:
    grid = 1.3 * x[:, :2].permute(0, 2, 3, 1).tanh()
    return F.grid_sample(x, grid, mode, padding, align_corners=padding == "border")


def resized(x: Tensor, size: tuple[int, int], mode: str, smooth: bool) -> Tensor:
    return F.interpolate(x, size, mode=mode, antialias=smooth)


RULES: dict[str, Callable[[Tensor], Tensor]] = {
    "chosen": lambda x: torch.where((x > 0.2) & ~(x > 1.0) | (x < -1.0), x, 0.1 * x + 3.0),
    "compared": lambda x: (x >= 0.3).float() * x + ((x <= 0.0) ^ (x == x.amax(2, True))).float(),
    "softplus": lambda x: F.softplus(x, beta=2.0, threshold=1.0) + F.logsigmoid(x),
    "shrunk": lambda x: F.hardshrink(x) + F.softshrink(x) + F.threshold(x, 0.1, -2.0),
    "rounded": lambda x: torch.round(4 * x) + torch.remainder(x, 1.5) + x.tan().clamp(-9, 9),
    "errors": lambda x: torch.erf(x) + F.gelu(x) + F.gelu(x, approximate="tanh") + F.mish(x),
    "repeated": lambda x: x[:, :2].repeat(1, 3, 1, 2)[..., 3:10] + x.repeat_interleave(2, 1)[:, :6],
    "put": put_among_zeros,
    "gathered": lambda x: x.gather(1, torch.arange(5, -1, -1).view(1, 6, 1, 1).expand_as(x)),
    "folded": folded,
    "running": lambda x: x.cumsum(1) + x.cumsum(3).flip(1),
    "ordered": lambda x: torch.cat([x.topk(3, 1).values, x.topk(2, 1, largest=False).values], 1),
    "triangle": lambda x: x.tril(1) + x.triu(-1).rot90(2, (2, 3)),
    "attention": lambda x: torch.einsum("nchw,ndhw->ncd", x, x).softmax(1),
    "heads": lambda x: torch.einsum("nchw,nchv->nhcwv", x, x.sigmoid()).softmax(2).mean(3),
    "outer": lambda x: torch.einsum("nchw,oc->nohw", x, torch.arange(12.0).view(2, 6).cos()),
    "normal": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (6,)) + 1.0,
    "groups": lambda x: F.group_norm(x, 3) + F.instance_norm(x) + F.local_response_norm(x, 3),
    "whole": lambda x: F.layer_norm(x, (6, 6, 7)),
    "cubic": lambda x: resized(x, (9, 5), "bicubic", False),
    "smooth": lambda x: resized(x, (4, 9), "bilinear", True),
    "smooth-cubic": lambda x: resized(x, (3, 4), "bicubic", True),
    "bilinear": lambda x: sampled(x, "bilinear", "zeros"),
    "bilinear-border": lambda x: sampled(x, "bilinear", "border"),
    "nearest": lambda x: sampled(x, "nearest", "zeros"),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, (4, 3)) + F.adaptive_max_pool2d(x, 1),
    "volume": lambda x: F.interpolate(x.unflatten(1, (2, 3)), (5, 9, 4), mode="trilinear"),
    "near-volume": lambda x: F.interpolate(x.unflatten(1, (2, 3)), (2, 9, 4), mode="nearest"),
}  # fmt: skip


@pytest.mark.slow
def test_every_operator(tmp_path_factory: pytest.TempPathFactory) -> None:
    torch.manual_seed(0)
    inputs = tuple(torch.randn(2, 6, 6, 7) for _ in RULES)
    network = Beside([Rule(rule) for rule in RULES.values()])
    path = exported(network, inputs, tmp_path_factory.mktemp("rules"))
    errors = distance(path, [x.numpy() for x in inputs])
    assert {n: e for n, e in zip(RULES, errors, strict=True) if not e < 1e-5} == {}


@st.composite
def volumes(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A convolution of volumes of any form, transposed or not, an activation and pooling."""
    torch.manual_seed(draw(st.integers(0, 1000)))
    groups, of_group = draw(st.sampled_from([(1, 3), (2, 2), (4, 1)]))
    sizes = [draw(st.integers(3, 6)) for _ in range(3)]
    kernel = [draw(st.integers(1, 3)) for _ in range(3)]
    step = [draw(st.integers(1, 2)) for _ in range(3)]
    gap = draw(st.integers(1, 2))
    sizes = [max(size, (k - 1) * gap + 1) for size, k in zip(sizes, kernel, strict=True)]
    around = [draw(st.integers(0, (k - 1) * gap // 2 + (k > 1))) for k in kernel]
    form = (4, groups * of_group, tuple(kernel), tuple(step), tuple(around))
    bias = draw(st.booleans())
    made: nn.Module = nn.Conv3d(*form, gap, groups, bias)  # type: ignore[arg-type]
    if draw(st.booleans()):
        around = [min(p, (k - 1) * gap // 2) for p, k in zip(around, kernel, strict=True)]
        form = (*form[:4], tuple(around))
        made = nn.ConvTranspose3d(*form, 0, groups, bias, gap)  # type: ignore[arg-type]
    average = nn.AvgPool3d(2, (1, 2, 1), 1, count_include_pad=draw(st.booleans()))
    x = torch.randn(2, 4, *sizes)
    pools = [nn.Identity(), nn.MaxPool3d(2, 1, 1), average]
    small = min(made(x).shape[2:]) < 2  # torch pools no average of less than a window
    pool = draw(st.sampled_from(pools[: 2 if small else 3]))
    density = draw(st.sampled_from([0, 0.2, 0.6, 1]))
    norm = nn.BatchNorm3d(groups * of_group)
    return masked(nn.Sequential(made, norm, nn.ReLU(), pool), density), x


@pytest.mark.slow
@given(drawn=st.lists(volumes(), min_size=6, max_size=6))
@settings(max_examples=max(1, int(os.environ.get("PRUNEC_EXAMPLES", "6")) // 6), deadline=None)
def test_any_volume(
    drawn: list[tuple[nn.Module, Tensor]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    inputs = tuple(x for _, x in drawn)
    path = exported(Beside([m for m, _ in drawn]), inputs, tmp_path_factory.mktemp("volumes"))
    assert max(distance(path, [x.numpy() for x in inputs])) < 1e-5


def test_an_output_of_all_samples_together_is_refused(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with pytest.raises(PassError, match="of all samples together"):
        exported(
            Rule(lambda x: x.mean() * x[0]), (torch.randn(2, 6),), tmp_path_factory.mktemp("a")
        )


def test_an_output_that_reads_no_sample_is_kept(tmp_path: Path) -> None:
    class Beacon(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places = nn.Parameter(torch.arange(5.0))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.sigmoid(), self.places * 2

    path = exported(Beacon(), (torch.randn(2, 6),), tmp_path)
    assert max(distance(path, [np.ones((3, 6), np.float32)])) < 1e-5
