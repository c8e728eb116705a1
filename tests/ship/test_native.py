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
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from ship_nets import METADATA, TINY_COST, FakeData, Shipped
from torch import Tensor, nn

import prunec
from prunec.artifact import Artifact
from prunec.deploy.exporter import Source
from prunec.deploy.gate import verify_file
from prunec.deploy.runner import once
from prunec.deploy.runners.native import Compiled, Native, load
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.errors import PassError, PrunecError
from prunec.exporters.to_c import ToC
from prunec.exporters.to_onnx import ToOnnx
from prunec.recipe import VerifySpec

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler is installed")
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Werror")


def exported(module: nn.Module, example: tuple[Tensor, ...], folder: Path) -> Path:
    artifact = Artifact(module.eval(), example)
    onnx = ToOnnx()(Source(artifact), folder / "model.onnx").path
    return ToC()(Source(artifact, METADATA, {"onnx": onnx}), folder / "c" / "model.c").path


def distance(path: Path, inputs: list[np.ndarray], loaded: Compiled | None = None) -> float:
    """The largest difference to onnxruntime's outputs, in shares of the largest of each."""
    ours = once(loaded or Native().open(path), inputs)
    theirs = once(Onnxruntime().open(path.parent.parent / "model.onnx"), inputs)
    assert [x.shape for x in ours] == [x.shape for x in theirs]
    pairs = zip(ours, theirs, strict=True)
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) for a, b in pairs)


def masked(module: nn.Module, density: float) -> nn.Module:
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                part.weight.mul_(torch.rand_like(part.weight) < density)
    return module


@st.composite
def layers(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A convolution of any form between two others, an activation behind it."""
    torch.manual_seed(draw(st.integers(0, 1000)))
    size, kernel = draw(st.integers(3, 13)), draw(st.sampled_from([1, 2, 3, 5, (3, 1), (1, 4)]))
    groups, of_group = draw(st.sampled_from([(1, 6), (2, 5), (8, 1), (4, 2)]))
    step, gap = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    around = tuple(draw(st.integers(0, (side - 1) * gap)) for side in sides)
    around = tuple(
        max(a, -(-((s - 1) * gap + 1 - size) // 2)) for a, s in zip(around, sides, strict=True)
    )
    width = draw(st.integers(max(1, size - 2), size + 9))
    activation = draw(st.sampled_from([nn.ReLU, nn.ReLU6, nn.SiLU, nn.Identity, nn.Hardswish]))
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, groups * of_group, kernel, step, around, gap, groups, draw(st.booleans())),
        activation(),
    )
    x = torch.randn(2, 3, size, max(width, (sides[1] - 1) * gap + 1))
    return masked(module, draw(st.sampled_from([0, 0.1, 0.4, 0.7, 1]))), x


class Beside(nn.Module):
    """Networks beside each other, each with an input and an output: built once for all of them."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        return [part(x) for part, x in zip(self.parts, inputs, strict=True)]


@pytest.mark.slow
@given(drawn=st.lists(layers(), min_size=8, max_size=8))
@settings(max_examples=max(1, int(os.environ.get("PRUNEC_EXAMPLES", "8")) // 8), deadline=None)
def test_any_convolution(
    drawn: list[tuple[nn.Module, Tensor]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    inputs = tuple(x for _, x in drawn)
    path = exported(Beside([m for m, _ in drawn]), inputs, tmp_path_factory.mktemp("layers"))
    assert distance(path, [x.numpy() for x in inputs]) < 1e-5


class Everything(nn.Module):
    """One network with what the kernels do beside convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.side = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 1)
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.deep = nn.Conv2d(8, 8, 5, padding=2, groups=8)
        self.up, self.norm = nn.ConvTranspose2d(16, 8, 3, 2, 1, 1), nn.BatchNorm2d(8)
        self.last, self.head = nn.Conv2d(8, 32, (3, 2)), nn.Linear(32 * 9, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x).relu()
        x = (self.two(self.one(x).relu()) + self.side(x)).relu()
        x = x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        x = torch.cat([x, F.silu(self.deep(x))], 1)
        x = x.unflatten(1, (2, 8)).transpose(1, 2).flatten(1, 2)  # channels shuffled
        left, right = self.norm(self.up(x)).chunk(2, 1)
        x = torch.cat([F.max_pool2d(left, 3, 2, 1), F.avg_pool2d(right, 3, 2, 1)], 1)
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = F.interpolate(x, size=(9, 10), mode="bilinear")
        x = F.pad(self.last(x), (0, 0, 0, 1), mode="replicate")
        x = F.adaptive_avg_pool2d(F.hardswish(x)[:, :, 1:7], (3, 3))
        return self.head(x.flatten(1)).softmax(1), x.amax((2, 3))


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    module = masked(Everything(), 0.4)
    return exported(module, (torch.randn(2, 3, 13, 16),), tmp_path_factory.mktemp("everything"))


@pytest.mark.parametrize("batch", [1, 5])
def test_every_kernel(everything: Path, batch: int) -> None:
    x = np.random.default_rng(0).standard_normal((batch, 3, 13, 16)).astype(np.float32)
    assert distance(everything, [x]) < 1e-5


@pytest.mark.parametrize("most", [0, 1])
def test_processors_without_wide_vectors(everything: Path, most: int) -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, 13, 16)).astype(np.float32)
    flags = ("-march=x86-64",) if platform.machine() == "x86_64" else ()
    assert distance(everything, [x], load(everything, (f"-DPRUNEC_MOST={most}", *flags))) < 1e-5


def test_threads_within_a_run(everything: Path) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 13, 16)).astype(np.float32)
    assert distance(everything, [x], load(everything, ("-fopenmp",))) < 1e-5


GUARD = """
#include <stdio.h>
#include <stdlib.h>
#include "model.h"
int main(void) {
    const size_t size = model_workspace_size();
    char *around = malloc(size + 128);
    float *x = malloc(3 * 13 * 16 * sizeof(float)), *y = malloc(10 * sizeof(float));
    float *z = malloc(32 * sizeof(float));
    if (!around || !x || !y || !z) return 3;
    for (int i = 0; i < 3 * 13 * 16; i++) x[i] = (float)(i % 7) - 3.0F;
    for (size_t i = 0; i < size + 128; i++) around[i] = 77;
    const float *inputs[] = {x};
    float *outputs[] = {y, z};
    if (model_run(NULL, around + 64, inputs, outputs, 1)) return 2;
    for (size_t i = 0; i < 64; i++)
        if (around[i] != 77 || around[size + 64 + i] != 77) return 1;
    char *tight = malloc(size);
    if (!tight || model_run(NULL, tight, inputs, outputs, 1)) return 2;
    free(around), free(x), free(y), free(z), free(tight);
    return 0;
}
"""


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["gcc", "clang", "clang-14"])
def test_no_warning_and_nothing_outside_the_workspace(
    everything: Path, compiler: str, tmp_path: Path
) -> None:
    """Warnings are errors; the sanitizers stop at the first wrong access."""
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    (tmp_path / "guard.c").write_text(GUARD)
    sources = [str(everything), str(tmp_path / "guard.c"), "-I", str(everything.parent)]
    checked = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-DPRUNEC_HERE")
    command = [compiler, "-std=c11", *WARNINGS, *checked, *sources, "-lm", "-o"]
    made = subprocess.run([*command, str(tmp_path / "guard")], capture_output=True, text=True)
    if "libclang_rt" in made.stderr and "No such file" in made.stderr:
        pytest.skip(f"{compiler} has no runtime of its sanitizers: install libclang-rt-dev")
    assert not made.returncode, made.stderr
    done = subprocess.run([str(tmp_path / "guard")], capture_output=True, text=True)
    assert not done.returncode, done.stderr


def test_the_workspace_is_used_again(everything: Path) -> None:
    described = load(everything).description
    assert described.workspace_bytes < described.buffers_bytes / 2


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


def test_many_weights_stand_beside_the_source(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = exported(nn.Linear(400, 300), (torch.randn(2, 400),), tmp_path)
    assert distance(path, [np.ones((3, 400), np.float32)]) < 1e-5
    assert prunec.load_native(path.parent)(np.ones((3, 400), np.float32)).shape == (3, 300)
    weights = path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(PrunecError, match="bytes, and model"):
        ToC().read_back(path)
    with pytest.raises(PrunecError, match="cut off"):
        Native().open(path)


class Sorted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sort(1).values


class Named(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(1)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Sorted(), "C has no TopK"),
        (Named(), "C has no ArgMax"),
        (nn.Conv3d(4, 4, 1), "C has no Conv of a tensor"),
        (nn.LSTM(4, 4, batch_first=True), "C has no "),
    ],
)
def test_what_has_no_kernel_is_refused_by_name(
    module: nn.Module, said: str, tmp_path: Path
) -> None:
    shape = (2, 4, 3, 3, 3) if isinstance(module, nn.Conv3d) else (2, 3, 4)
    with pytest.raises(PassError, match=said):
        exported(module, (torch.randn(shape),), tmp_path)
    assert not (tmp_path / "c" / "model.c").exists()


def test_a_machine_without_a_compiler_is_told(
    everything: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(PrunecError, match="no-such-compiler is not installed") as raised:
        Native().open(everything)
    assert "apt install gcc" in str(raised.value.remedy)
