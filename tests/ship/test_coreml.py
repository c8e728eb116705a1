"""Core ML's package: the same bytes, whole, told as not run; skipped where the converter is not."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

import pytest
import torch
from ship_nets import tiny
from typer.testing import CliRunner

from prunec.artifact import Artifact
from prunec.catalogue import exporter
from prunec.cli.commands import app
from prunec.deploy.exporter import Source
from prunec.errors import NotExact, PassError
from prunec.exporters.to_onnx import ToOnnx

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("coremltools") is None,
        reason="coremltools is not installed: pip install 'prunec[coreml]'",
    ),
    *(
        pytest.mark.filterwarnings(f"ignore::{kind}")
        for kind in ("DeprecationWarning", "FutureWarning", "UserWarning")
    ),
]


def test_the_package_is_the_same_every_time_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    artifact = Artifact(tiny(0), (torch.randn(2, 3, 16, 16),))
    ToOnnx()(Source(artifact), tmp_path / "model.onnx")
    source = Source(artifact, {"prunec.feeding": "{}"}, {"onnx": tmp_path / "model.onnx"})
    writer = exporter("to-coreml")()
    paths = [tmp_path / name / "model.zip" for name in ("a", "b")]
    made = [writer(source, path) for path in paths]
    assert made[0].sha256 == made[1].sha256
    with zipfile.ZipFile(paths[0]) as archive:
        names = archive.namelist()
    assert "model.mlpackage/Manifest.json" in names
    assert all(name.startswith("model.mlpackage/") for name in names)
    data = bytearray(paths[0].read_bytes())
    data[len(data) // 2] ^= 1
    paths[0].write_bytes(data)
    with pytest.raises(Exception, match=r"cannot be read|a complete ML program"):
        writer.read_back(paths[0])
    bytes_given = Artifact(tiny(0), (torch.zeros(2, 3, 16, 16, dtype=torch.uint8),))
    with pytest.raises(PassError, match="cannot hold bytes"):
        writer(Source(bytes_given, {}, source.files), tmp_path / "c" / "model.zip")
    for wrong in (tiny(0).train(), tiny(0).double()):
        example = tuple(x.to(next(wrong.parameters()).dtype) for x in artifact.example)
        with pytest.raises((PassError, NotExact)):
            writer(Source(Artifact(wrong, example), {}, source.files), tmp_path / "c" / "model.zip")


@pytest.mark.slow
def test_an_export_says_that_it_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["compile", "squeezenet1_1", "--input", "3x32x32", "--classes", "10"]
    result = CliRunner().invoke(app, [*words, "--coreml", "--json", "--bundle", "b.zip"])
    assert result.exit_code == 0, result.output
    assert "not run here: needs macOS" in result.stdout
    checked = CliRunner().invoke(app, ["verify", "b.zip"])
    assert checked.exit_code == 0, checked.output
    assert "not run here: needs macOS" in " ".join(checked.output.split())
