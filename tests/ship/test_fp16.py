"""Half precision: what fits is halves, what does not stays float32, and every loss has a name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from ship_nets import METADATA, TINY_COST, FakeData, tiny
from torch import nn

from prunec.artifact import Artifact
from prunec.deploy.exporter import Exported, Source
from prunec.deploy.gate import verify_file
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.exporters.to_fp16 import ToFp16
from prunec.exporters.to_onnx import ToOnnx
from prunec.recipe import VerifySpec


def exported(module: nn.Module, folder: Path) -> tuple[Exported, Artifact]:
    artifact = Artifact(module, (torch.randn(2, 3, 16, 16),))
    ToOnnx()(Source(artifact, METADATA), folder / "onnx" / "model.onnx")
    source = Source(artifact, METADATA, {"onnx": folder / "onnx" / "model.onnx"})
    made = ToFp16()(source, folder / "fp16" / "model.onnx", [artifact.example])
    return made, artifact


def kinds(path: Path) -> dict[str, str]:
    return {
        tensor.name: str(numpy_helper.to_array(tensor).dtype)
        for tensor in onnx.load(path).graph.initializer
    }


def test_kernels_are_halves_and_the_rest_is_float32(tmp_path: Path) -> None:
    made, artifact = exported(tiny(seed=0), tmp_path)
    actual = kinds(made.path)
    for name, tensor in artifact.module.state_dict().items():
        if tensor.ndim > 1:
            assert actual[f"{name}_half"] == "float16"
        elif not name.endswith("num_batches_tracked"):
            assert actual[name] == "float32"
    session = Onnxruntime().open(made.path)
    assert next(session.run([[np.zeros((1, 3, 16, 16), np.float32)]]))[0].dtype == np.float32
    report = verify_file(
        made.path,
        artifact.module,
        artifact.example,
        exporter=ToFp16(),
        runner=Onnxruntime(),
        spec=VerifySpec(),
        torch_cost=TINY_COST,
        data=FakeData(),  # type: ignore[arg-type]
    )
    assert report.passed, report.failures
    assert made.told["remarks"] == []
    losses = made.told["losses"]
    assert isinstance(losses, list)
    assert all(loss["moved"] == loss["vanished"] == 0 for loss in losses)


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (1e5, "its largest weight is"),
        (1e-5, "1 of its 16 filters are too small"),
        (1e-9, "1 of its 16 filters are too small"),
        (1e-39, "1 of its 16 filters are too small"),
    ],
)
def test_a_filter_that_does_not_fit_keeps_its_kernel(
    tmp_path: Path, size: float, told: str
) -> None:
    """Values kept as float32, bit for bit: not replaced by 65504, 6e-8 or zero."""
    module = tiny(seed=0)
    with torch.no_grad():
        module[6].weight[3] *= size / module[6].weight[3].abs().max()
    made, artifact = exported(module, tmp_path)
    (remark,) = made.told["remarks"]  # type: ignore[misc, attr-defined]
    assert "6.weight stays float32" in remark
    assert told in remark
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(made.path).graph.initializer}
    assert np.array_equal(tensors["6.weight"], artifact.module.get_parameter("6.weight").detach())
    assert "9.weight_half" in tensors


def test_single_weights_that_vanish_are_named(tmp_path: Path) -> None:
    module = tiny(seed=0)
    with torch.no_grad():
        module[6].weight[3, 2] = 1e-9
        module[6].weight[4, 1] = -2e-8
    made, _ = exported(module, tmp_path)
    assert made.told["remarks"] == ["6.weight: 2 weights of up to 2e-08 are zero in half precision"]
    loss = next(x for x in made.told["losses"] if x["tensor"] == "6.weight")  # type: ignore[attr-defined]
    assert (loss["vanished"], loss["moved"]) == (2, 0)
