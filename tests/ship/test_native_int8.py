"""Integer kernels compute what whole numbers say, on every kind of processor alike."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from int8_graphs import F32, Graph, Layer, Rounding, compiled
from native_boards import AARCH64, M3, M7, Target, check
from native_guarded import GUARDED, WARNINGS, guarded
from native_nets import Everything, OfIntegers, masked, need_compiler
from sampling import slow_case
from ship_nets import METADATA, TINY_COST, FakeData, tiny
from torch import Tensor, nn

import prunec
from prunec.artifact import Artifact, Step
from prunec.deploy.exporter import Exported, Source
from prunec.deploy.gate import verify_file
from prunec.deploy.native.fours import Fours, fours
from prunec.deploy.native.library import load
from prunec.deploy.native.packing import STRIDE
from prunec.deploy.runner import once
from prunec.deploy.runners.native import Native
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.errors import NeedsNotMet, PassError
from prunec.exporters.to_c import ToC
from prunec.exporters.to_c_int8 import ToCInt8
from prunec.exporters.to_int8 import ToInt8
from prunec.exporters.to_onnx import ToOnnx
from prunec.graph.rewriting.fold_batch_norms import fold_batch_norms
from prunec.recipe import VerifySpec

HERE = "-DPRUNEC_HERE"
A53 = replace(AARCH64, emulator=(*AARCH64.emulator, "-cpu", "cortex-a53"))
"""The same system with a processor that has no dot products."""
ON_X86 = platform.machine() == "x86_64"
CAN = Path("/proc/cpuinfo").read_text().split() if ON_X86 else []
LEVELS: dict[str, tuple[str, ...]] = {
    "plain": ("-DPRUNEC_MOST=0",),
    "baseline": (HERE, "-DPRUNEC_MOST=1", *(("-march=x86-64",) if ON_X86 else ())),
    **({"avx2": (HERE, "-march=haswell")} if "avx2" in CAN else {}),
    # AVX-512 has the same instruction; processors without it may have it as AVX-VNNI.
    **({"avxvnni": (HERE, "-march=native", "-DPRUNEC_MOST=2")} if "avx512_vnni" in CAN else {}),
    "chosen": (HERE, "-march=native"),
}


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    """A convolution of any form, with or without another summand."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    groups, inner, of_group = draw(
        st.sampled_from([(1, 6, 5), (2, 4, 3), (8, 1, 1), (4, 1, 2), (1, 70, 3), (1, 3, 17)])
    )
    axes = draw(st.sampled_from([1, 2, 2, 2]))
    kernel = [draw(st.sampled_from([1, 2, 3, 5])) for _ in range(axes)]
    steps = [draw(st.integers(1, 3)) for _ in range(axes)]
    gaps = [draw(st.integers(1, 2)) for _ in range(axes)]
    forms = list(zip(kernel, gaps, strict=True))
    pads = [draw(st.integers(0, (k - 1) * g)) for _ in range(2) for k, g in forms]
    sizes = [(k - 1) * g + 1 + max(steps) + draw(st.integers(0, 20)) for k, g in forms]
    weight = rng.integers(-64, 65, (groups * of_group, inner, *kernel)).astype(np.int8)
    weight *= (rng.random(weight.shape) < draw(st.sampled_from([0.0, 0.03, 0.2, 1.0]))).astype(
        np.int8
    )
    count = weight[0].size * 40.0
    scales = rng.uniform(0.5, 1.5, len(weight)).astype(F32)
    added = draw(st.sampled_from([None, Rounding(0.03, 100), Rounding(0.02, 0)]))
    return Layer(
        x=rng.standard_normal((1, groups * inner, *sizes)).astype(F32),
        weight=weight,
        scales=scales,
        bias=rng.integers(-3000, 3000, len(weight)),
        given=draw(st.sampled_from([Rounding(0.02, 128), Rounding(0.013, 0), Rounding(0.01, 255)])),
        made=Rounding(0.01 * count**0.5, draw(st.sampled_from([0, 1, 128, 255]))),
        options={"group": groups, "strides": steps, "dilations": gaps, "pads": pads},
        act=draw(st.sampled_from(["", "Relu", "Relu6"])),
        added=added,
        between=draw(st.sampled_from([Rounding(0.05, 90), Rounding(0.06, 0)])) if added else None,
    )


@need_compiler
@pytest.mark.slow
@pytest.mark.parametrize("bits", [7, 8])
@given(drawn=st.lists(layers(), min_size=12, max_size=12))
@settings(max_examples=max(1, int(os.environ.get("PRUNEC_EXAMPLES", "8")) // 8), deadline=None)
def test_any_convolution_is_the_whole_numbers_bit_for_bit(
    bits: int, drawn: list[Layer], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """On every kind of processor; with weights of eight bits, whose pairs of products leave 16."""
    if bits == 8:
        drawn = [
            replace(each, weight=(2 * each.weight.astype(int)).clip(-128, 127).astype(np.int8))
            for each in drawn
        ]
    folder, graph = tmp_path_factory.mktemp("layers"), Graph(drawn)
    path = compiled(graph.save(folder / "model.onnx"), folder / "c")
    source = path.read_text()
    assert bits == 8 or "PN_EIGHT_BITS" not in source
    assert source.count("q->fours") + source.count("q->quads") == len(drawn)
    for level, flags in LEVELS.items():
        loaded = load(path, flags)
        assert level in ("chosen", loaded.processor)
        for made, layer in zip(once(loaded, graph.arrays), drawn, strict=True):
            expected = layer.outputs()
            assert np.array_equal(made, expected), (level, layer, made, expected)


def restored(packed: Fours, shape: tuple[int, int]) -> np.ndarray:
    """The matrix that the kernel reads."""
    made = np.zeros(shape, np.int64)
    ends = 4 * np.cumsum(packed.counts.astype(int))
    for row, (end, count) in enumerate(zip(ends, packed.counts, strict=True)):
        own = slice(end - 4 * int(count), end)
        places = packed.places[own].astype(int)
        columns = places if packed.places.dtype == np.uint16 else np.cumsum(places)
        np.add.at(made[row], columns, packed.values[own])
    return made


@settings(deadline=None)
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 70),
    columns=st.sampled_from([1, 2, 255, 256, 257, 511, 1300]),
    density=st.sampled_from([0.0, 0.002, 0.02, 0.2, 1.0]),
)
def test_any_matrix_is_stored(seed: int, rows: int, columns: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(-64, 65, (rows, columns)) * (rng.random((rows, columns)) < density)
    packed = fours(values.astype(np.int8))
    assert np.array_equal(restored(packed, values.shape), values)
    before = np.cumsum(packed.counts.astype(int)) - packed.counts
    assert np.array_equal(packed.starts, before[::STRIDE])
    assert len(packed.values) <= 1.02 * np.count_nonzero(values) + 3 * rows


def of_form(
    module: nn.Module, example: tuple[Tensor, ...], folder: Path, bits: int = 7
) -> Exported:
    """The int8 file of a network, and the C of that file."""
    step = Step("made", {}, ("compact", "folded"), (1, 1), (1, 1), None, 0.0, "digest")
    artifact = Artifact(module.eval(), example, history=(step,))
    files = {"onnx": folder / "model.onnx", "int8": folder / "int8" / "model.onnx"}
    source = Source(artifact, METADATA, files)
    ToOnnx()(source, files["onnx"])
    batches = [tuple(torch.randn(8, *x.shape[1:]) for x in example)]
    ToInt8(agreement=0.0, accuracy_drop=100.0, weight_bits=bits)(source, files["int8"], batches)
    return ToCInt8()(source, folder / "c" / "model.c", batches)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    x, folder = torch.randn(2, 3, 13, 16), tmp_path_factory.mktemp("network")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("prunec.deploy.native.source.LARGEST_SOURCE", 0)  # weights in a file
        made = of_form(masked(OfIntegers(), 0.4), (x,), folder)
    assert made.form == "c-int8"
    assert made.told == {"integer layers": 8, "layers": 8}
    (made.path.parent / "guarded.c").write_text(GUARDED)
    return made.path


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, 13, 16)).astype(F32)


@need_compiler
def test_a_network_answers_as_its_int8_file(network: Path) -> None:
    """Apart by a step of rounding here and there: sums of two tensors are rounded once less."""
    file = network.parent.parent / "int8" / "model.onnx"
    ours, theirs = (
        once(Native().open(network), [images(32)]),
        once(Onnxruntime().open(file), [images(32)]),
    )
    for a, b in zip(ours, theirs, strict=True):
        assert np.abs(a - b).max() < 0.05 * np.abs(b).max()
        assert np.abs(a - b).mean() < 0.01 * np.abs(b).max()


@need_compiler
def test_every_processor_computes_the_same_bits(network: Path) -> None:
    """Also on several threads, and in a build for any processor."""
    made = [once(load(network, flags), [images(3)])[1] for flags in LEVELS.values()]
    made += [prunec.load_native(network, threads=3)(images(3))[1]]
    assert all(np.array_equal(made[0], other) for other in made[1:])


@need_compiler
@pytest.mark.parametrize(
    "level", ["plain", *(slow_case(level) for level in LEVELS if level != "plain")]
)
def test_nothing_is_touched_outside_workspace_and_weights(
    network: Path, level: str, tmp_path: Path
) -> None:
    guarded(network, tmp_path, "cc", "-O2", *LEVELS[level])


@pytest.mark.parametrize("compiler", [slow_case("gcc"), slow_case("clang", nightly=True)])
@pytest.mark.parametrize(
    # With the sanitizers the widest kernels take many minutes to compile.
    "level",
    ["plain", "baseline", pytest.param("chosen", marks=pytest.mark.nightly)],
)
def test_no_warning_and_no_undefined_behaviour(
    network: Path, level: str, compiler: str, tmp_path: Path
) -> None:
    checked = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1")
    guarded(network, tmp_path, compiler, *checked, *LEVELS[level])


class OneOutput(OfIntegers):
    """Both outputs in a row."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(super().forward(x), 1)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A network, and a program that compares its outputs with those of this machine."""
    torch.manual_seed(0)
    x = torch.randn(1, 3, 13, 16)
    source = of_form(masked(OneOutput(), 0.4), (x,), tmp_path_factory.mktemp("cross")).path
    golden = once(Native().open(source), [x.numpy()])[0]
    return [source, check(source.parent, 1 << 20, x.numpy(), golden)]


@need_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "flags", "processor"),
    [
        pytest.param(AARCH64, (), "dotprod", id="aarch64"),
        pytest.param(A53, (), "baseline", id="cortex-a53"),
        pytest.param(AARCH64, ("-march=armv8.2-a+dotprod",), "baseline", id="dot-product"),
        pytest.param(M3, (), "plain", id="cortex-m3"),
        pytest.param(M7, (), "plain", id="cortex-m7", marks=pytest.mark.nightly),
    ],
)
def test_another_processor(
    sources: list[Path], target: Target, flags: tuple[str, ...], processor: str, tmp_path: Path
) -> None:
    target.require()
    program = target.build(sources, tmp_path, *WARNINGS, *flags)
    assert target.run(program) == f"{processor} equal"


class FloatsBetween(Everything):
    """Operators without an integer kernel, between convolutions that have one."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(super().forward(x), 1)


@need_compiler
@pytest.mark.slow
def test_other_operators_compute_in_float(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = of_form(masked(FloatsBetween(), 0.4), (torch.randn(2, 3, 13, 16),), tmp_path)
    ours = once(Native().open(made.path), [images(8)])[0]
    theirs = once(Onnxruntime().open(tmp_path / "int8" / "model.onnx"), [images(8)])[0]
    assert np.abs(ours - theirs).max() < 0.05 * np.abs(theirs).max()


@need_compiler
def test_pooling_takes_the_largest_bytes(tmp_path: Path) -> None:
    """As onnxruntime, bit by bit: windows of any form, sizes rounded up too."""
    forms = [
        ((9, 14), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ((70, 75), {"kernel_shape": [2, 3], "strides": [1, 2]}),
        ((8, 10), {"kernel_shape": [3, 2], "strides": [3, 3], "ceil_mode": 1}),
        ((7, 40), {"kernel_shape": [3, 5], "dilations": [2, 3], "pads": [2, 1, 0, 2]}),
        ((33,), {"kernel_shape": [4], "strides": [2], "pads": [3, 0]}),
    ]
    graph = Graph([])
    for number, (sizes, options) in enumerate(forms):
        x = np.random.default_rng(number).standard_normal((1, 5, *sizes)).astype(F32)
        graph.pooled(f"p{number}", x, Rounding(0.02, 40 * number), options)
    file = graph.save(tmp_path / "model.onnx")
    path = compiled(file, tmp_path / "c")
    assert path.read_text().count("q->largest") == len(forms)
    theirs = once(Onnxruntime().open(file), graph.arrays)
    for flags in LEVELS.values():
        ours = once(load(path, flags), graph.arrays)
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_what_c_cannot_round_is_refused_by_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = (torch.randn(2, 3, 13, 16),)
    with pytest.raises(NeedsNotMet, match="reads the int8 file"):
        ToCInt8()(Source(Artifact(OfIntegers(), x)), tmp_path / "model.c", [x])
    layer = Graph([])
    layer.signed("s", np.ones((1, 2, 3, 4), F32))
    with pytest.raises(PassError, match="unsigned bytes of one scale"):
        compiled(layer.save(tmp_path / "signed.onnx"), tmp_path)


@need_compiler
@pytest.mark.parametrize(("density", "most"), [(0.1, 2.2), (1.0, 1.05)])
def test_a_weight_takes_two_bytes_or_one(density: float, most: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = masked(nn.Sequential(nn.Conv2d(64, 256, 3), nn.Conv2d(256, 256, 3)), density)
    count = sum(int(p.count_nonzero()) for p in module.parameters() if p.ndim > 1)
    made = of_form(module, (torch.randn(2, 64, 9, 9),), tmp_path)
    assert made.path.with_suffix(".bin").stat().st_size < most * count
    assert made.bytes < most * count + 200_000
    assert ToC().read_back(made.path).graph_digest == made.graph_digest


@need_compiler
@pytest.mark.slow
def test_the_written_file_is_proven_by_its_answers(tmp_path: Path) -> None:
    """Under the bounds of the recipe, by the runner of native code."""
    module, example = tiny(seed=0), (torch.randn(2, 3, 16, 16),)
    folded = fold_batch_norms(module, example)[0]
    made = of_form(folded, example, tmp_path)
    report = verify_file(
        made.path,
        folded,
        example,
        exporter=ToCInt8(agreement=0.7, accuracy_drop=30.0),
        runner=Native(),
        spec=VerifySpec(),
        torch_cost=TINY_COST,
        data=FakeData(),  # type: ignore[arg-type]
    )
    assert report.passed, report.failures
    assert "top-1 agreement" in {check.name for check in report.checks}
