"""Native code of other processors, under emulators, makes what onnxruntime makes here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from native_boards import AARCH64, M3, M4, M7, Target, check
from native_nets import Everything, exported, in_columns, masked
from torch import Tensor

from prunec.deploy.runner import once
from prunec.deploy.runners.onnxruntime import Onnxruntime

pytestmark = pytest.mark.slow
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Werror")


class OneOutput(Everything):
    """Both outputs in a row."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(super().forward(x), 1)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A network that has every kernel, and a program that compares its outputs."""
    torch.manual_seed(0)
    x = torch.randn(1, 3, 13, 16)
    folder = tmp_path_factory.mktemp("cross")
    source = exported(masked(OneOutput(), 0.4), (x,), folder, in_columns)
    golden = once(Onnxruntime().open(source.parent.parent / "model.onnx"), [x.numpy()])[0]
    return [source, check(source.parent, 1 << 20, x.numpy(), np.asarray(golden))]


@pytest.mark.parametrize(
    ("target", "flags", "processor"),
    [
        pytest.param(AARCH64, (), "baseline", id="aarch64"),
        pytest.param(
            AARCH64, ("-DPRUNEC_MOST=0",), "plain", id="without-vectors", marks=pytest.mark.nightly
        ),
        pytest.param(M3, (), "plain", id="cortex-m3"),
        pytest.param(M4, (), "plain", id="cortex-m4", marks=pytest.mark.nightly),
        pytest.param(M7, (), "plain", id="cortex-m7"),
    ],
)
def test_another_processor(
    sources: list[Path], target: Target, flags: tuple[str, ...], processor: str, tmp_path: Path
) -> None:
    target.require()
    program = target.build(sources, tmp_path, *WARNINGS, *flags)
    assert target.run(program) == f"{processor} equal"
