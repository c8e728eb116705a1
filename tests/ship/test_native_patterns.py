"""Kernels of masks with a pattern: chosen by the weights alone, and equal to onnxruntime."""

from __future__ import annotations

import os
import platform
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_boards import AARCH64, M7, Target, check
from native_nets import Beside, distance, exported, need_compiler
from torch import Tensor, nn

from prunec.deploy.native.library import load
from prunec.deploy.native.patterns import Packed, patterned
from prunec.deploy.runner import once
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.sparsity.masks import Masks
from prunec.sparsity.patterns.option import pattern_of

pytestmark = need_compiler
CHECKED = Target(
    "gcc",
    ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-DPRUNEC_MOST=1"),
    ("env",),
)
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Werror")


def shaped(module: nn.Conv2d, text: str, density: float = 0.125) -> nn.Conv2d:
    """A convolution whose weights have a pattern, its largest weights kept."""
    masks = Masks({"w": module.weight}, pattern=pattern_of(text))
    masks.keep_largest([round(density * module.weight.numel())])
    masks.apply()
    return module


def kernels(path: Path) -> Counter[str]:
    return Counter(re.findall(r"k->(\w+)\(", path.read_text()))


def mixed() -> tuple[list[nn.Module], tuple[Tensor, ...]]:
    """Every kernel: groups, steps, dilations, a ragged block, nibbles and bytes, residuals."""
    torch.manual_seed(0)
    parts = [
        nn.Sequential(shaped(nn.Conv2d(16, 24, 3, padding=1), "4x1"), nn.ReLU()),
        shaped(nn.Conv2d(16, 8, 1, bias=False), "4x1"),
        shaped(nn.Conv2d(16, 16, 3, 2, 1, groups=2), "4x1"),
        nn.Sequential(shaped(nn.Conv2d(16, 20, (3, 1), dilation=2, padding=2), "1:8"), nn.ReLU6()),
        shaped(nn.Conv2d(64, 7, 3, 2, 1), "3:64", 3 / 64),
        shaped(nn.Conv2d(32, 9, 1), "1:16", 1 / 16),
        shaped(nn.Conv2d(48, 9, 3, groups=3), "1:8"),
    ]
    with torch.no_grad():  # a last block of two filters, and groups that are not full
        ragged = nn.Conv2d(16, 7, 1, bias=False)
        ragged.weight[0] = 0  # as a channel of constants that removal left: blocks begin behind it
        ragged.weight[1:] = parts[1].weight[:6]
        parts[1] = ragged
        parts[6].weight[0, 0] = 0
        for i in (2, 6):  # what is exact in halves is stored as halves
            parts[i].weight.copy_(parts[i].weight.half())
    sizes = [(16, 13), (16, 30), (16, 9), (16, 11), (64, 15), (32, 8), (48, 7)]
    return parts, tuple(torch.randn(2, channels, size, size + 3) for channels, size in sizes)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    parts, inputs = mixed()
    path = exported(Beside(parts), inputs, tmp_path_factory.mktemp("patterns"))
    return path, [x.numpy() for x in inputs]


def test_the_weights_choose_the_kernel(built: tuple[Path, list[np.ndarray]]) -> None:
    path, inputs = built
    assert kernels(path) == {"blocks": 3, "neighbours": 4, "widen": 2}
    assert max(distance(path, inputs)) < 1e-5


@pytest.mark.parametrize("most", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_processors_without_wide_vectors(built: tuple[Path, list[np.ndarray]], most: int) -> None:
    path, inputs = built
    flags = ("-march=x86-64",) if platform.machine() == "x86_64" else ()
    loaded = load(path, (f"-DPRUNEC_MOST={most}", *flags))
    assert max(distance(path, inputs, loaded)) < 1e-5


@pytest.mark.nightly
@pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX-512 is of x86-64")
def test_the_code_for_the_widest_vectors(built: tuple[Path, list[np.ndarray]]) -> None:
    path, inputs = built
    assert max(distance(path, inputs, load(path, ("-DPRUNEC_HALVES",)))) < 1e-5


@st.composite
def layers(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A convolution of any form whose mask has a pattern, behind another one."""
    torch.manual_seed(draw(st.integers(0, 1000)))
    text = draw(st.sampled_from(["4x1", "8x1", "1:2", "1:4", "1:8", "2:8", "1:16", "5:32"]))
    pattern = pattern_of(text)
    groups, kernel = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 3, 5]))
    step, gap, size = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(9, 30))
    outputs = 8 * groups * draw(st.integers(1, 3)) if "x" in text else groups * 5
    around = draw(st.integers(0, (kernel - 1) * gap))
    layer = nn.Conv2d(32 * groups, outputs, kernel, step, around, gap, groups, draw(st.booleans()))
    density = (pattern.density if pattern else None) or draw(st.floats(0.05, 0.4))
    activation = draw(st.sampled_from([nn.ReLU, nn.ReLU6, nn.SiLU, nn.Identity]))
    first = nn.Conv2d(3, 32 * groups, 1)
    return nn.Sequential(first, shaped(layer, text, density), activation()), torch.randn(
        2, 3, size, size + draw(st.integers(0, 9))
    )


@pytest.mark.slow
@given(drawn=st.lists(layers(), min_size=8, max_size=8))
@settings(max_examples=max(1, int(os.environ.get("PRUNEC_EXAMPLES", "8")) // 8), deadline=None)
def test_any_convolution_with_a_pattern(
    drawn: list[tuple[nn.Module, Tensor]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    inputs = tuple(x for _, x in drawn)
    path = exported(Beside([m for m, _ in drawn]), inputs, tmp_path_factory.mktemp("layers"))
    assert max(distance(path, [x.numpy() for x in inputs])) < 1e-5


class InARow(nn.Module):
    """Some of them on one input, their outputs in a row."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x).flatten(1) for part in self.parts], 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "processor"),
    [
        pytest.param(AARCH64, "baseline", id="aarch64"),
        pytest.param(M7, "plain", id="cortex-m7"),
        pytest.param(CHECKED, "baseline", id="sanitizers", marks=pytest.mark.nightly),
    ],
)
def test_another_processor(target: Target, processor: str, tmp_path: Path) -> None:
    target.require()
    parts, inputs = mixed()
    module = InARow([parts[0], parts[2], parts[3]])
    x = inputs[0][:1]
    source = exported(module, (x,), tmp_path)
    assert kernels(source) == {"blocks": 2, "neighbours": 1, "widen": 1}
    golden = once(Onnxruntime().open(tmp_path / "model.onnx"), [x.numpy()])[0]
    program = check(source.parent, 1 << 20, x.numpy(), np.asarray(golden))
    assert target.run(target.build([source, program], tmp_path, *WARNINGS)) == f"{processor} equal"


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    text=st.sampled_from(["4x1", "1:2", "1:4", "2:8", "1:16", "3:32", ""]),
    taps=st.sampled_from([1, 9]),
)
def test_what_is_packed_is_what_was_there(seed: int, text: str, taps: int) -> None:
    """Read back as the kernels read it: every weight at its offset, and none besides."""
    rng = np.random.default_rng(seed)
    module = nn.Conv2d(32, 12, (taps, 1))
    pattern = pattern_of(text)
    density = (pattern.density if pattern else None) or 0.2
    values = shaped(module, text, density).weight.detach().numpy().reshape(12, -1)
    offsets = rng.permutation(32)[:, None] * 1000 + np.arange(taps)
    if text.partition(":")[2]:  # the steps of neighbours are those of channels
        offsets = np.arange(32)[:, None] * 1000 + np.arange(taps)
    packed = patterned(values, 1, offsets.reshape(-1).astype(np.uint32), taps)
    if packed is None:
        assert not text
        return
    wanted = {(f, int(offsets.reshape(-1)[i])): v for (f, i), v in np.ndenumerate(values) if v}
    read = blocks(packed, offsets) if packed.kernel == "blocks" else neighbours(packed, 12)
    assert {key: v for key, v in read.items() if v} == wanted


def blocks(packed: Packed, offsets: np.ndarray) -> dict[tuple[int, int], float]:
    own = {**packed.arrays, "values": packed.values}
    flat = offsets.reshape(-1)
    return {
        (int(own["firsts"][b]) + r, int(flat[own["places"][i]])): own["values"][i, r]
        for b in range(len(own["starts"]) - 1)
        for i in range(own["starts"][b], own["starts"][b + 1])
        for r in range(4)
    }


def neighbours(packed: Packed, filters: int) -> dict[tuple[int, int], float]:
    own, numbers = packed.arrays, packed.numbers
    places, values = own["places"], packed.values.reshape(-1)
    read = {}
    for i, value in enumerate(values):
        f, group = divmod(i // numbers["kept"], numbers["groups"])
        place = places[i // 2] >> i % 2 * 4 & 15 if numbers["packed"] else places[i]
        if value:
            read[f, int(packed.offsets[group] + own["starts"][place])] = value
    assert f == filters - 1
    return read
