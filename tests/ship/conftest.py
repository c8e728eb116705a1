"""One small network and its file, exported once, and one library of each source and its flags."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import pytest
import torch
from ship_nets import METADATA, TINY_COST, FakeData, Shipped, Verify, tiny

from prunec.artifact import Artifact
from prunec.deploy.checks import Report
from prunec.deploy.exporter import Source
from prunec.deploy.gate import verify_file
from prunec.deploy.native import compiler, library
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.exporters.to_onnx import ToOnnx
from prunec.recipe import VerifySpec


@pytest.fixture(autouse=True, scope="session")
def _built_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Build the same source with the same flags once, in half the time: with -O1.

    `test_every_kernel` asks for -O2, with which libraries ship.
    """
    folder, build = tmp_path_factory.mktemp("libraries"), compiler.build

    def built(path: Path, target: Path, flags: Sequence[str] = compiler.HERE) -> None:
        files = sorted(path.parent.glob("*.[ch]"))
        texts = [repr((compiler.compiler(), path.name, flags)).encode()]
        digest = hashlib.sha256(b"\0".join(texts + [file.read_bytes() for file in files]))
        kept = folder / digest.hexdigest()
        if not kept.exists():
            build(path, kept, ("-O1", *flags))
        shutil.copy(kept, target)  # each library has variables of its own

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(library, "build", built)
        yield


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
