"""C computes what onnxruntime computes; what it has no kernel for is refused by name."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from native_guarded import GUARDED, WARNINGS, guarded
from native_nets import Beside, Everything, distance, exported, in_columns, masked, need_compiler
from sampling import slow_case
from ship_nets import METADATA, TINY_COST, FakeData, Shipped
from torch import Tensor, nn

import prunec
from prunec.artifact import Artifact
from prunec.deploy.exporter import Source
from prunec.deploy.gate import verify_file
from prunec.deploy.native.library import load
from prunec.deploy.native.lowering import lower
from prunec.deploy.native.reading import read_network
from prunec.deploy.native.source import program, write_program
from prunec.deploy.runner import once
from prunec.deploy.runners.native import Native
from prunec.errors import PassError, PrunecError
from prunec.exporters.to_c import ToC
from prunec.recipe import VerifySpec

pytestmark = need_compiler


@st.composite
def layers(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A convolution of any form between two others, an activation behind it."""
    torch.manual_seed(draw(st.integers(0, 1000)))
    size, kernel = draw(st.integers(3, 13)), draw(st.sampled_from([1, 2, 3, 5, (3, 1), (1, 4)]))
    groups, of_group = draw(
        st.sampled_from([(1, 6), (2, 5), (8, 1), (8, 1), (4, 2), (1, 31), (2, 16)])
    )
    inner = draw(st.sampled_from([8, 8, 32]))
    step, gap = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    around = tuple(draw(st.integers(0, (side - 1) * gap)) for side in sides)
    around = tuple(
        max(a, -(-((s - 1) * gap + 1 - size) // 2)) for a, s in zip(around, sides, strict=True)
    )
    width = draw(st.integers(max(1, size - 2), size + 9))
    activation = draw(st.sampled_from([nn.ReLU, nn.ReLU6, nn.SiLU, nn.Identity, nn.Hardswish]))
    module = nn.Sequential(
        nn.Conv2d(3, inner, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(inner, groups * of_group, kernel, step, around, gap, groups, draw(st.booleans())),
        activation(),
    )
    x = torch.randn(2, 3, size, max(width, (sides[1] - 1) * gap + 1))
    return masked(module, draw(st.sampled_from([0, 0.1, 0.4, 0.7, 1]))), x


@pytest.mark.slow
@given(drawn=st.lists(layers(), min_size=8, max_size=8), data=st.data())
@settings(max_examples=max(1, int(os.environ.get("PRUNEC_EXAMPLES", "8")) // 8), deadline=None)
def test_any_convolution(
    drawn: list[tuple[nn.Module, Tensor]],
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """By any kernel that fits it."""
    inputs, folder = tuple(x for _, x in drawn), tmp_path_factory.mktemp("layers")
    parts = Beside([m for m, _ in drawn])
    path = exported(parts, inputs, folder, lambda fits: data.draw(st.sampled_from(fits)))
    assert max(distance(path, [x.numpy() for x in inputs])) < 1e-5


class Pooled(nn.Module):
    """Several poolings of one image."""

    def __init__(self, pools: list[nn.Module]) -> None:
        super().__init__()
        self.pools = nn.ModuleList(pools)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [pool(x) for pool in self.pools]


@st.composite
def pools(draw: st.DrawFn) -> nn.Module:
    """A pooling that fits 13×18 positions."""
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    step = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    around = tuple(draw(st.integers(0, side // 2)) for side in kernel)
    # Rounded up, torch drops a last window that begins behind the image.
    up = all(b <= a + 1 for b, a in zip(step, around, strict=True)) and draw(st.booleans())
    if draw(st.booleans()):
        gap = 1 if up else draw(st.integers(1, 3))
        return nn.MaxPool2d(kernel, step, around, gap, ceil_mode=up)
    return nn.AvgPool2d(kernel, step, around, up, draw(st.booleans()))


@given(drawn=st.lists(pools(), min_size=12, max_size=12))
@settings(
    max_examples=max(1, int(os.environ.get("PRUNEC_EXAMPLES", "12")) // 12),
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # a smaller failing example is not worth its minutes
)
def test_any_pooling(drawn: list[nn.Module], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Beside torch: NaN and infinities stay where torch has them."""
    module, x = Pooled(drawn), torch.randn(1, 5, 13, 18)
    path = exported(module, (x,), tmp_path_factory.mktemp("pools"))
    x[0, 1, 4, 5:8], x[0, 2, 7, 3], x[0, 3] = torch.nan, torch.inf, -torch.inf
    for pool, actual in zip(drawn, once(load(path), [x.numpy()]), strict=True):
        expected = pool(x).numpy()
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6, err_msg=str(pool))


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    module = masked(Everything(), 0.4)
    x, folder = torch.randn(2, 3, 13, 16), tmp_path_factory.mktemp("everything")
    return exported(module, (x,), folder, in_columns)


@pytest.mark.parametrize("batch", [1, 5])
def test_every_kernel(everything: Path, batch: int) -> None:
    x = np.random.default_rng(0).standard_normal((batch, 3, 13, 16)).astype(np.float32)
    assert max(distance(everything, [x], load(everything, ("-O2",)))) < 1e-5


@pytest.mark.parametrize("most", [0, slow_case(1)])
def test_processors_without_wide_vectors(everything: Path, most: int) -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, 13, 16)).astype(np.float32)
    flags = ("-march=x86-64",) if platform.machine() == "x86_64" else ()
    loaded = load(everything, (f"-DPRUNEC_MOST={most}", *flags))
    assert max(distance(everything, [x], loaded)) < 1e-5


@pytest.mark.nightly
@pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX-512 is of x86-64")
def test_the_code_for_the_widest_vectors(everything: Path) -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, 13, 16)).astype(np.float32)
    halves = load(everything, ("-DPRUNEC_HALVES",))
    assert halves.processor == "avx512"
    assert max(distance(everything, [x], halves)) < 1e-5


def test_what_is_not_a_number_stays_so(tmp_path: Path) -> None:
    """Under what bounds and what takes the largest, on processors with and without vectors."""
    rules = [nn.ReLU(), nn.ReLU6(), nn.Hardswish(), nn.Hardsigmoid(), nn.Hardtanh(-0.5, 0.5)]
    layers = [nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), rule) for rule in rules]
    steps = [nn.Conv2d(3, 12, 3, 2, 1, groups=3), nn.Conv2d(3, 12, 3, 1, 1, groups=3)]
    layers += [nn.Sequential(step, nn.ReLU()) for step in steps]
    layers += [nn.Sequential(nn.Flatten(), nn.Linear(270, 40), nn.ReLU())]
    pools = [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1)]
    parts = Beside([*rules, *layers, *pools])
    inputs = tuple(torch.randn(1, 3, 9, 10) for _ in parts.parts)
    path = exported(parts, inputs, tmp_path)
    for x in inputs:
        x[0, 1, 4, 5] = np.nan
    wanted = [(~y.isfinite()).numpy() for y in parts(*inputs)]
    for flags in ((), ("-DPRUNEC_MOST=0",)):
        made = load(path, flags).run([[x.numpy() for x in inputs]])
        assert all(np.array_equal(~np.isfinite(a), b) for a, b in zip(*made, wanted, strict=True))


@pytest.mark.slow
def test_threads_within_a_run(everything: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads are those requested, not the environment's; outputs are the bits of one thread."""
    x = np.random.default_rng(0).standard_normal((2, 3, 13, 16)).astype(np.float32)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    one, three = (prunec.load_native(everything, threads=n)(x) for n in (1, 3))
    assert all(np.array_equal(a, b) for a, b in zip(one, three, strict=True))
    with pytest.raises(PrunecError, match="threads = 0"):
        prunec.load_native(everything, threads=0)


@pytest.mark.slow
def test_rows_of_a_linear_layer_share_its_weights(tmp_path: Path) -> None:
    """Any number of rows, and of outputs that fill no panel."""
    torch.manual_seed(0)
    parts = [masked(nn.Linear(19, 45), density) for density in (0.03, 0.4, 1.0)]
    inputs = tuple(torch.randn(2, rows, 19) for rows in (5, 14, 3))
    path = exported(Beside(parts), inputs, tmp_path)
    assert max(distance(path, [x.numpy() for x in inputs])) < 1e-5


@pytest.fixture(scope="module")
def beside(everything: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network, its weights in a file."""
    folder = tmp_path_factory.mktemp("beside")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("prunec.deploy.native.source.LARGEST_SOURCE", 0)
        network = read_network(everything.parent.parent / "model.onnx")
        kernels = {name: in_columns(fits) for name, fits in lower(network).choices.items()}
        made = lower(network, kernels)
        write_program(program(made, METADATA), folder / "model.c")
    (folder / "guarded.c").write_text(GUARDED)
    return folder / "model.c"


@pytest.mark.parametrize("compiler", [slow_case("gcc"), slow_case("clang", nightly=True)])
def test_no_warning_and_no_undefined_behaviour(beside: Path, compiler: str, tmp_path: Path) -> None:
    """Warnings are errors; the sanitizers stop at the first wrong access."""
    checked = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1")
    guarded(beside, tmp_path, compiler, *checked, "-DPRUNEC_HERE")


HALVES = ("-march=native", "-DPRUNEC_HERE", "-DPRUNEC_HALVES")
"""The code for AVX-512 without its instructions: the compiler cuts its vectors."""


@pytest.mark.parametrize(
    "flags",
    [
        slow_case((("-march=native", "-DPRUNEC_HERE"),)),
        ("-DPRUNEC_MOST=0",),
        pytest.param(HALVES, marks=pytest.mark.nightly),
    ],
)
def test_nothing_is_touched_outside_workspace_and_weights(
    beside: Path, flags: tuple[str, ...], tmp_path: Path
) -> None:
    guarded(beside, tmp_path, "cc", "-O2", *flags)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX-512 is of x86-64")
@pytest.mark.parametrize("compiler", [slow_case("gcc", nightly=True), slow_case("clang")])
def test_wide_vectors_compile_without_a_warning(
    everything: Path, compiler: str, tmp_path: Path
) -> None:
    """AVX-512 alone: few machines run it, and no emulator that tests could use."""
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    flags = ["-O2", "-std=c11", "-mavx512f", "-mavx512vl", "-mfma", "-DPRUNEC_HERE", "-S", "-o"]
    made = subprocess.run(
        [compiler, *WARNINGS, *flags, str(tmp_path / "model.s"), str(everything)],
        capture_output=True,
        text=True,
    )
    assert not made.returncode, made.stderr
    assert "zmm30" in (tmp_path / "model.s").read_text()


def test_the_workspace_is_used_again(everything: Path) -> None:
    described = load(everything).description
    assert described.workspace_bytes < described.buffers_bytes / 2


@pytest.mark.slow
def test_it_is_proven_as_it_was_written(shipped: Shipped, tmp_path: Path) -> None:
    source = Source(Artifact(shipped.module, shipped.example), METADATA, {"onnx": shipped.path})
    path = ToC()(source, tmp_path / "model.c").path
    report = verify_file(
        path,
        shipped.module,
        shipped.example,
        exporter=ToC(),
        runner=Native(),
        spec=VerifySpec(),
        torch_cost=TINY_COST,
        data=FakeData(),  # type: ignore[arg-type]
    )
    assert report.passed, report.failures


@pytest.mark.slow
def test_many_weights_stand_beside_the_source(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = exported(nn.Linear(400, 300), (torch.randn(2, 400),), tmp_path)
    assert max(distance(path, [np.ones((3, 400), np.float32)])) < 1e-5
    assert prunec.load_native(path.parent)(np.ones((3, 400), np.float32)).shape == (3, 300)
    weights = path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(PrunecError, match="bytes, but model"):
        ToC().read_back(path)
    with pytest.raises(PrunecError, match="cut off"):
        Native().open(path)


class Named(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(1)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Named(), "C has no ArgMax"),
        (nn.LSTM(4, 4, batch_first=True), "C has no "),
    ],
)
def test_what_has_no_kernel_is_refused_by_name(
    module: nn.Module, said: str, tmp_path: Path
) -> None:
    with pytest.raises(PassError, match=said):
        exported(module, (torch.randn(2, 3, 4),), tmp_path)
    assert not (tmp_path / "c" / "model.c").exists()


def test_a_machine_without_a_compiler_is_reported(
    everything: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(PrunecError, match="no-such-compiler is not installed") as raised:
        Native().open(everything)
    assert "apt install gcc" in str(raised.value.remedy)
