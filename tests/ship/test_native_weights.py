"""Weights of the sparse kernels: what is stored is what the network has, in as few bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from native_nets import Beside, distance, exported, masked, need_compiler
from ship_nets import METADATA
from torch import nn

from prunec.artifact import Artifact
from prunec.deploy.exporter import Source
from prunec.deploy.native.library import load
from prunec.deploy.native.packing import STRIDE, Rows, compressed
from prunec.deploy.runner import once
from prunec.deploy.runners.native import Native
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.exporters.to_c import ToC
from prunec.exporters.to_c_fp16 import ToCFp16
from prunec.exporters.to_fp16 import ToFp16


def restored(rows: Rows, columns: int) -> np.ndarray:
    """The matrix that a kernel reads."""
    made = np.zeros((len(rows.counts), columns), np.float32)
    ends = np.cumsum(rows.counts.astype(int))
    for row, (end, count) in enumerate(zip(ends, rows.counts, strict=True)):
        own = slice(end - int(count), end)
        places = rows.places[own].astype(int)
        np.add.at(made[row], places if rows.places.dtype == np.uint16 else np.cumsum(places),
                  rows.values[own].astype(np.float32))  # fmt: skip
    return made


@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 70),
    columns=st.sampled_from([1, 2, 255, 256, 257, 511, 1300]),
    density=st.sampled_from([0.0, 0.002, 0.02, 0.2, 1.0]),
    halves=st.booleans(),
)
@example(seed=0, rows=1, columns=65535, density=1.0, halves=False)
@example(seed=0, rows=2, columns=65535, density=0.00005, halves=True)
def test_any_matrix_is_stored_bit_by_bit(
    seed: int, rows: int, columns: int, density: float, *, halves: bool
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, columns)).astype(np.float32)
    values *= rng.random((rows, columns)) < density
    values = values.astype(np.float16).astype(np.float32) if halves else values
    packed = compressed(values)
    assert np.array_equal(restored(packed, columns), values)
    before = np.cumsum(packed.counts.astype(int)) - packed.counts
    assert np.array_equal(packed.starts, before[::STRIDE])
    if halves:
        assert packed.values.dtype == np.float16


@pytest.mark.parametrize("last", [255, 256, 510, 511, 765])
def test_the_widest_gap_of_a_byte(last: int) -> None:
    """Enough other weights that a filler pays."""
    values = np.zeros((1, 1000), np.float32)
    values[0, [0, last]] = 1.5
    values[0, last + 1 :] = 2.5
    packed = compressed(values)
    assert packed.places.dtype == np.uint8
    assert np.array_equal(restored(packed, 1000), values)
    assert len(packed.values) == np.count_nonzero(values) + (last - 1) // 255


@pytest.mark.parametrize("value", [1e-9, 70000.0, 1 / 3, np.inf, 2.0**-25])
def test_one_number_that_is_not_a_half_keeps_a_tensor_in_floats(value: float) -> None:
    assert compressed(np.array([[1.0, value]], np.float32)).values.dtype == np.float32
    assert compressed(np.array([[1.0, 2.0**-24, 65504.0]], np.float32)).values.dtype == np.float16


def sparse(density: float, *, halves: bool) -> nn.Module:
    """Convolutions with gaps of a byte or two, with steps, depthwise, and a linear layer."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 70, 3, padding=1), nn.ReLU(), nn.Conv2d(70, 70, 3, 2, 1, groups=70),
        nn.Conv2d(70, 40, 5, padding=2), nn.Flatten(), nn.Linear(40 * 36, 37),
    )  # fmt: skip
    masked(module, density)
    with torch.no_grad():
        for parameter in module.parameters():
            small = torch.arange(parameter[0].numel()) % 5 == 0
            parameter[0].view(-1)[small] *= 2.0**-16  # halves without a leading one
            parameter.copy_(parameter.half().float() if halves else parameter)
    return module


FORMS = [(density, halves) for density in (0.004, 0.3) for halves in (False, True)]


@pytest.fixture(scope="module")
def every_form(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parts = [sparse(density, halves=halves) for density, halves in FORMS]
    examples = tuple(torch.randn(1, 3, 12, 12) for _ in parts)
    return exported(Beside(parts), examples, tmp_path_factory.mktemp("forms"))


@need_compiler
@pytest.mark.parametrize("flags", [(), ("-DPRUNEC_MOST=0",)])
def test_every_form_of_weights_computes_the_same(every_form: Path, flags: tuple[str, ...]) -> None:
    """By the processor's own instruction for halves, and number by number."""
    text = every_form.read_text()
    for far in (0, 1):
        for halves in (0, 1):
            assert f".weights.far = {far}, .weights.widened = {halves}" in text
    inputs = [np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)] * 4
    assert max(distance(every_form, inputs, load(every_form, flags))) < 1e-5


@need_compiler
def test_a_zero_costs_no_byte(tmp_path: Path) -> None:
    """Five bytes a nonzero weight, three of halves, and what every network has."""
    torch.manual_seed(0)
    module = masked(nn.Sequential(nn.Conv2d(64, 256, 3), nn.Conv2d(256, 256, 3)), 0.1)
    count = sum(int(p.count_nonzero()) for p in module.parameters() if p.ndim > 1)
    path = exported(module, (torch.randn(2, 64, 9, 9),), tmp_path)
    everything = sum(file.stat().st_size for file in path.parent.iterdir())
    assert everything < 6 * count + 200_000
    assert path.with_suffix(".bin").stat().st_size < 5.3 * count


@need_compiler
def test_halves_on_request(tmp_path: Path) -> None:
    """A lossy form: the answers of the fp16 file, from weights of two bytes."""
    torch.manual_seed(0)
    example = (torch.randn(2, 3, 12, 12),)
    module = sparse(0.3, halves=False)
    path = exported(module, example, tmp_path)
    source = Source(Artifact(module, example), METADATA, {"onnx": tmp_path / "model.onnx"})
    made = ToCFp16()(source, tmp_path / "half" / "model.c", [example])
    wide = ToC().size(path)
    assert made.form == "c-fp16"
    assert made.told["half"] == 4
    assert made.bytes < 0.75 * wide
    ToFp16()(source, tmp_path / "fp16" / "model.onnx", [example])
    inputs = [example[0].numpy()]
    ours = once(Native().open(made.path), inputs)[0]
    theirs = once(Onnxruntime().open(tmp_path / "fp16" / "model.onnx"), inputs)[0]
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


@need_compiler
def test_weights_are_mapped(tmp_path: Path) -> None:
    """Processes that run the same network share its pages."""
    torch.manual_seed(0)
    path = exported(nn.Linear(400, 300), (torch.randn(2, 400),), tmp_path)
    loaded = Native().open(path)
    assert str(path.with_suffix(".bin")) in Path("/proc/self/maps").read_text()
    assert once(loaded, [np.ones((3, 400), np.float32)])[0].shape == (3, 300)
