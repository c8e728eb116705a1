"""Native code of a run: timed by layer, and sent in a bundle that nothing runs unasked."""

from __future__ import annotations

import ctypes
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from native_nets import need_compiler
from senders import exported, run

import prunec
from prunec.errors import PrunecError

pytestmark = [need_compiler, pytest.mark.slow]
CODE = """
from torch import nn

def build(num_classes):
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(4),
                         nn.Flatten(), nn.Linear(64, num_classes))
"""
RECIPE = """
name = "coded"
[model]
name = "a_network_in_c:build"
[[pass]]
name = "remove-channels"
[verify.budget]
latency_ratio = false
"""


@pytest.fixture(scope="module")
def sender(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, and its bundle as a zip and unpacked."""
    root = tmp_path_factory.mktemp("sender")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prunec.pipeline.bundles.code.EVERYWHERE", ("-s", "-DPRUNEC_MOST=0"))
        exported(root, "a_network_in_c", CODE, RECIPE, "--c", "--bundle", "b.zip", "--native")
    with zipfile.ZipFile(root / "b.zip") as archive:
        archive.extractall(root / "b")
    return root


def library(root: Path) -> Path:
    said = json.loads((root / "b/manifest.json").read_text())["additional_metadata"]["prunec"]
    return root / "b" / str(said["code"]["library"])


def test_a_library_is_loaded_by_its_name_without_a_compiler(
    sender: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    x, y = (np.load(sender / f"b/golden/{name}_0.npy") for name in ("input", "output"))
    made = prunec.load_native(library(sender))(x)
    assert np.abs(made - y).max() < 1e-5 * np.abs(y).max()
    with pytest.raises(PrunecError, match="no C compiler") as raised:
        prunec.load_native(sender / "b/c")
    assert library(sender).name in str(raised.value.remedy)


def test_a_received_bundle_is_checked_without_running_its_code(
    sender: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a library was loaded")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    monkeypatch.setenv("CC", "no-such-compiler")
    for place in ("b.zip", "b"):
        result = run("verify", sender / place)
        assert result.exit_code == 0, result.output
        assert "which prunec neither builds nor runs" in " ".join(result.output.split())


def test_a_library_that_was_changed_is_not_loaded(sender: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(sender / "b.zip") as archive:
        archive.extractall(tmp_path / "b")
    changed = tmp_path / library(sender).relative_to(sender)
    changed.write_bytes(changed.read_bytes() + b"\0")
    with pytest.raises(PrunecError, match="not what the bundle's manifest declares"):
        prunec.load_native(changed)
    assert run("verify", tmp_path / "b").exit_code == 2


def test_layers_beside_the_dense_network(sender: Path, tmp_path: Path) -> None:
    place = next((sender / "runs").iterdir())
    plot, wanted = tmp_path / "b.svg", ("--runner", "native", "--layers", "--batch", "1")
    result = run("bench", place, *wanted, "--json", "--plot", plot)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    layers = [layer for layer in report["layers"]["shipped"] if layer["work"]]
    assert [layer["operator"] for layer in layers] == ["dense", "linear"]
    assert layers[0]["work"]["products"] == 4 * 9 * 13 * 13
    assert "relu_nchwc" in {layer["name"] for layer in report["layers"]["dense"]}
    assert layers[0]["name"] == "relu"
    assert report["peaks"]["gmacs"] > 0
    assert "GMAC/s in registers" in plot.read_text()


def test_bench_names_what_is_missing(sender: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(sender)
        patch.syspath_prepend(str(sender))
        assert run("export", "coded.toml", "--runs", tmp_path / "runs").exit_code == 0
        result = run("bench", next((tmp_path / "runs").iterdir()), "--runner", "native")
    assert result.exit_code == 1
    assert "--c" in result.output
