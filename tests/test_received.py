"""A run's folder that was received: checked and shown without running what its recipe names."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from senders import exported, run

from prunec.errors import RecipeError
from prunec.models.building import build_model
from prunec.recipe import ModelSpec

MODULE = "a_senders_network"
CODE = """
from torch import nn

def build(num_classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                         nn.Linear(4 * 36, num_classes))
"""
RECIPE = f"""
name = "sent"
[model]
name = "{MODULE}:build"
classes = 5
input = ["3x8x8"]
[data]
name = "none"
[[pass]]
name = "remove-channels"
[verify.budget]
latency_ratio = false
"""


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sender's folder, exported; its code stays with the sender."""
    root = tmp_path_factory.mktemp("sender")
    exported(root, MODULE, CODE, RECIPE)
    sys.modules.pop(MODULE, None)
    return root / "runs" / "sent-001"


@pytest.fixture
def received(sent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it beside a module of the same name that must not be imported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{MODULE}.py").write_text("raise SystemExit('the code of the recipe ran')")
    shutil.copytree(sent, tmp_path / "got")
    return tmp_path / "got"


@pytest.mark.slow
def test_a_folder_is_verified_and_shown_without_its_code(received: Path) -> None:
    before = {path: path.read_bytes() for path in received.rglob("*") if path.is_file()}
    result = run("verify", received, "--no-code")
    assert result.exit_code == 0, result.output
    for name in ("file digest", "graph digest", "recipe digest", "MACs", "golden values"):
        assert name in result.output
    shown = run("inspect", received, "--no-code")
    assert shown.exit_code == 0, shown.output
    assert "otal" in shown.output
    manifest = json.loads((received / "export/manifest.json").read_text())
    content = json.loads(run("inspect", received, "--no-code", "--json").output)
    layers = content["forms"]["onnx"]["layers"]
    assert sum(layer["macs"] for layer in layers) == manifest["onnx"]["macs"]
    assert MODULE not in sys.modules
    assert {path: path.read_bytes() for path in received.rglob("*") if path.is_file()} == before


def edited(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def one_bit(content: bytes) -> bytes:
    place = len(content) - 9
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def other_weights(folder: Path) -> None:
    """Another file of the same graph and counts."""
    path = folder / "export/onnx/model.onnx"
    model = onnx.load(path)
    tensor = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    tensor.raw_data = bytes(len(tensor.raw_data) - 4) + tensor.raw_data[:4]
    path.write_bytes(model.SerializeToString(deterministic=True))


def recorded(folder: Path, key: str, value: object) -> None:
    path = folder / "export/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["onnx"][key] = value
    path.write_text(json.dumps(manifest))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit of the file": (lambda f: edited(f / "export/onnx/model.onnx", one_bit), "file digest"),
    "the file gone": (lambda f: (f / "export/onnx/model.onnx").unlink(), "readable"),
    "other weights": (other_weights, "golden values"),
    "a bit of the golden values": (
        lambda f: edited(f / "export/onnx/golden.safetensors", one_bit),
        "golden values",
    ),
    "golden values gone": (lambda f: (f / "export/onnx/golden.safetensors").unlink(), "golden"),
    "another recipe": (
        lambda f: edited(f / "recipe.toml", lambda t: t.replace(b"seed = 0", b"seed = 7")),
        "recipe",
    ),
    "other MACs": (lambda f: recorded(f, "macs", 7), "MACs"),
    "other parameters": (lambda f: recorded(f, "params", 7), "parameters"),
    "a broken seal": (lambda f: recorded(f, "prunec", "0"), "manifest"),
    "a record gone": (lambda f: (f / "export/report.json").unlink(), "records"),
    "no digest": (lambda f: recorded(f, "sha256", None), "file digest"),
    "a manifest that records nothing": (
        lambda f: (f / "export/manifest.json").write_text("{}"),
        "manifest",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_does_not_fit_is_named(received: Path, name: str) -> None:
    damage, told = DAMAGES[name]
    damage(received)
    result = run("verify", received, "--no-code", "--json")
    assert "Traceback" not in result.output
    if result.exit_code == 1:  # nothing is left to compare with
        assert "manifest.json" in result.output or "recipe.toml" in result.output
        return
    assert result.exit_code == 2
    checks = json.loads(result.output)["forms"]["onnx"]["checks"]
    assert any(told in check["name"] for check in checks if not check["passed"])


def test_only_the_files_of_the_folder_are_checked_without_code(received: Path) -> None:
    result = run("verify", received, "--no-code", "--onnx", "other.onnx")
    assert result.exit_code == 1
    assert "Leave --onnx out" in result.output


# -- what does not build a network ----------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["torch.hub:load", "torch:load", "os:system", "subprocess:Popen", "builtins:exec", "pip:main",
     "runpy:run_path", "torch.jit:load", "pickle:load", "borrowed:load", "borrowed:Popen"],
)  # fmt: skip
def test_what_fetches_or_runs_is_no_factory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "borrowed.py").write_text(
        "from subprocess import Popen\nfrom torch.hub import load"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RecipeError, match="does not build a network") as caught:
        build_model(ModelSpec(name=name, options={"args": ["true"]}), 10, seed=0)
    assert "my_networks:build" in caught.value.remedy
    sys.modules.pop("borrowed", None)


def test_a_partial_is_its_makers_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_partial.py").write_text(
        "from functools import partial\nfrom torch import nn\n\n"
        "def net(num_classes, width):\n    return nn.Linear(width, num_classes)\n\n"
        "build = partial(net, width=3)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    made = build_model(ModelSpec(name="a_partial:build"), 10, seed=0)
    assert made.weight.shape == (10, 3)


@pytest.mark.parametrize("option", ["pretrained", "checkpoint_path", "pretrained_cfg"])
def test_timm_loads_no_file_by_an_option(option: str) -> None:
    pytest.importorskip("timm")
    spec = ModelSpec(name="timm:mobilenetv3_small_050", options={option: "evil.pth"})
    with pytest.raises(RecipeError, match=f"model.options.{option}: timm would") as caught:
        build_model(spec, 10, seed=0)
    assert "model.weights" in caught.value.remedy
