"""One small network and its file, exported once: the exporter takes seconds."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from ship_nets import METADATA, TINY_COST, FakeData, Shipped, Verify, tiny

from prunec.artifact import Artifact
from prunec.deploy.checks import Report
from prunec.deploy.exporter import Source
from prunec.deploy.gate import verify_file
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.exporters.to_onnx import ToOnnx
from prunec.recipe import VerifySpec


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    module, example = tiny(seed=0), (torch.randn(2, 3, 16, 16),)
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    ToOnnx()(Source(Artifact(module, example), METADATA), path)
    return Shipped(module, example, path)


@pytest.fixture
def proto(shipped: Shipped) -> onnx.ModelProto:
    return onnx.load(shipped.path)


@pytest.fixture
def verify(shipped: Shipped, tmp_path: Path) -> Verify:
    """Verify the shipped file, or a spoiled version of it, against the network."""

    def run(spoiled: onnx.ModelProto | bytes | Path | None = None, **options: object) -> Report:
        path = shipped.path
        if isinstance(spoiled, Path):
            path = spoiled
        elif spoiled is not None:
            path = tmp_path / "spoiled.onnx"
            data = spoiled if isinstance(spoiled, bytes) else spoiled.SerializeToString()
            path.write_bytes(data)
        given: dict[str, object] = {
            "exporter": ToOnnx(),
            "runner": Onnxruntime(),
            "spec": VerifySpec(),
            "torch_cost": TINY_COST,
            "data": FakeData(),
            "manifest": {"recipe_digest": METADATA["prunec.recipe_digest"]},
        }
        return verify_file(path, shipped.module, shipped.example, **(given | options))  # type: ignore[arg-type]

    return run
