"""Kernels that are measured on the spot, or named: recorded as used, and the same bytes again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from native_nets import distance, exported, masked, need_compiler
from ship_nets import METADATA
from torch import nn

from prunec.artifact import Artifact
from prunec.deploy.exporter import Source
from prunec.deploy.native.library import load
from prunec.deploy.native.lowering import lower
from prunec.deploy.native.reading import read_network
from prunec.errors import PassError, PrunecError
from prunec.exporters.to_c import ToC

X = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def untuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 1, 2), nn.Conv2d(32, 32, 3, 1, 1),
        nn.Flatten(), nn.Linear(32 * 9, 10),
    )  # fmt: skip
    return exported(masked(module, 0.5), (X,), tmp_path_factory.mktemp("untuned"))


def source(untuned: Path) -> Source:
    onnx = untuned.parent.parent / "model.onnx"
    return Source(Artifact(nn.Identity(), (X,)), METADATA, {"onnx": onnx})


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@need_compiler
@pytest.mark.slow
def test_a_measured_choice_is_recorded_and_writes_the_same_bytes_again(
    untuned: Path, tmp_path: Path
) -> None:
    path = ToC(tune=True)(source(untuned), tmp_path / "c" / "model.c").path
    loaded = load(path)
    lines = loaded.description.metadata.decode().splitlines()
    recorded = json.loads(next(x.removeprefix("kernels=") for x in lines if x[:8] == "kernels="))
    choices = lower(read_network(source(untuned).files["onnx"]), recorded).choices
    assert recorded == {name: fits[0] for name, fits in choices.items()}
    again = ToC(kernels=recorded)(source(untuned), tmp_path / "again" / "model.c").path
    assert contents(path.parent) == contents(again.parent)
    onnx = tmp_path / "model.onnx"
    onnx.write_bytes(source(untuned).files["onnx"].read_bytes())
    assert max(distance(path, [np.asarray(X)], loaded)) < 1e-5


def test_a_measurement_without_a_compiler_is_refused_before_anything_is_written(
    untuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(PrunecError, match="no-such-compiler is not installed") as raised:
        ToC(tune=True)(source(untuned), tmp_path / "c" / "model.c")
    assert "apt install gcc" in str(raised.value.remedy)
    assert not (tmp_path / "c" / "model.c").exists()


def test_a_choice_that_fits_no_layer_is_refused_by_name(untuned: Path, tmp_path: Path) -> None:
    choices = lower(read_network(source(untuned).files["onnx"])).choices
    first = next(iter(choices))
    with pytest.raises(PassError, match="'nowhere', which no convolution"):
        ToC(kernels={"nowhere": "dense"})(source(untuned), tmp_path / "model.c")
    for kernel in ("three", "fastest", "linear"):
        with pytest.raises(PassError, match=f"'{kernel}' does not compute '{first}'") as raised:
            ToC(kernels={first: kernel})(source(untuned), tmp_path / "model.c")
        assert "There are" in str(raised.value.remedy)
    assert not (tmp_path / "model.c").exists()
