"""`prunec compile`: from a checkpoint to a folder that every later command takes."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from compile_nets import Answer
from end_to_end_net import Tiny
from PIL import Image
from senders import run
from torch import nn
from torch.nn.utils import prune
from typer.testing import Result

NETWORK = "end_to_end_net:Tiny"
SIZES = "3x16x16"
ANSWER = ("compile", "compile_nets:Answer", "--classes", 3)
INPUTS = ("--input", "3x8x8", "--input", "5:int64")


def pruned() -> nn.Module:
    """A network whose last convolution loses half of its output channels: its norm gives 0."""
    torch.manual_seed(0)
    made = Tiny(num_classes=2).eval()
    convolution, norm = made.tail[0], made.tail[1]
    prune.ln_structured(convolution, "weight", amount=0.5, n=2, dim=0)
    gone = convolution.weight_mask.flatten(1).sum(1) == 0
    norm.running_mean[gone], norm.bias.data[gone] = 0, 0
    return made


def compiled(*more: object) -> Result:
    return run("compile", NETWORK, "--weights", "pruned.pth", "--input", SIZES, *more)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, and what was compiled from it in ``out``."""
    folder = tmp_path_factory.mktemp("shipped")
    with contextlib.chdir(folder):
        torch.save({"epoch": 1, "state_dict": pruned().state_dict()}, "pruned.pth")
        result = compiled("-o", "out")
    assert result.exit_code == 0, result.output
    assert "no test split" in result.output
    return folder


@pytest.fixture(scope="module")
def answering(shipped: Path) -> None:
    """That folder, with a network of two inputs compiled in ``asked``."""
    with contextlib.chdir(shipped):
        result = run(*ANSWER, "-o", "asked", *INPUTS, "--opset", 12)
    assert result.exit_code == 0, result.output


@pytest.fixture(autouse=True)
def here(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, which is the working directory."""
    shutil.copytree(shipped, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def manifest(run_folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run_folder / "export/manifest.json").read_text())["onnx"]
    return content


@pytest.mark.slow
def test_a_pruned_checkpoint_becomes_a_smaller_file_with_the_same_answers(here: Path) -> None:
    x = torch.randn(2, 3, 16, 16)
    session = onnxruntime.InferenceSession(here / "out/export/onnx/model.onnx")
    outputs = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    with torch.no_grad():
        assert np.abs(pruned()(x).numpy() - outputs).max() < 1e-5
    dense = json.loads(run("count", NETWORK, "--input", SIZES, "--json").output)
    assert manifest(here / "out")["macs"] < 0.8 * dense["macs"]


@pytest.mark.slow
def test_the_folder_serves_every_later_command(here: Path) -> None:
    (here / "pruned.pth").unlink()  # the run holds what it needs
    for command in (["verify"], ["bench"], ["inspect"], ["report"]):
        result = run(*command, "out")
        assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_a_recipe_without_training_does_the_same(here: Path) -> None:
    result = run("export", "out/recipe.toml")
    assert result.exit_code == 0, result.output
    (made,) = (here / "runs").iterdir()
    assert manifest(made) == manifest(here / "out")
    refused = run("train", "out/recipe.toml")
    assert refused.exit_code == 1
    assert "has no training pass" in refused.output


@pytest.mark.slow
def test_files_that_are_given_are_the_same_byte_for_byte_afterwards(here: Path) -> None:
    torch.save({"tail.0.weight": torch.ones_like(pruned().tail[0].weight)}, "masks.pth")
    shutil.copy("out/recipe.toml", "given.toml")
    shutil.copytree("out/export", "given")
    asked = ("given.toml", "given/onnx/model.onnx", "masks.pth", "pruned.pth")
    given = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    given = {p: b for p, b in given.items() if "out" not in p.relative_to(here).parts[:1]}
    assert {here / name for name in asked} <= given.keys()
    calls = (
        ("count", "given/onnx/model.onnx"),
        ("count", NETWORK, "--input", SIZES),
        ("inspect", "given.toml"),
        ("verify", "out", "given/onnx/model.onnx"),
        ("verify", "out"),
        ("compile", NETWORK, "--weights", "pruned.pth", "--input", SIZES, "-o", "made"),
        ("compile", NETWORK, "--weights", "masks.pth", "--input", SIZES, "-o", "other"),
    )
    for call in calls:
        result = run(*call)
        assert "Traceback" not in result.output, call
        for path, before in given.items():
            assert path.read_bytes() == before, (call, path)


@pytest.mark.slow
def test_a_file_of_masks_does_as_masks_in_the_checkpoint(here: Path) -> None:
    state = pruned().state_dict()
    masks = {key: value for key, value in state.items() if key.endswith("_mask")}
    bare = {k.removesuffix("_orig"): v for k, v in state.items() if k not in masks}
    torch.save(masks, "masks.pth")
    torch.save(bare, "bare.pth")
    result = run(
        *("compile", NETWORK, "--weights", "bare.pth", "--masks", "masks.pth"),
        *("--input", SIZES, "-o", "other"),
    )
    assert result.exit_code == 0, result.output
    one, two = (manifest(here / name)["weights_digest"] for name in ("out", "other"))
    assert one == two


@pytest.mark.slow
def test_with_images_accuracy_is_checked(here: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("cat", "dog"):
            folder = here / "photos" / split / kind
            folder.mkdir(parents=True)
            for number in range(2):
                pixels = rng.integers(0, 255, (70, 70, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    result = compiled("--data", "photos", "-o", "seen")
    assert result.exit_code == 0, result.output
    assert "accuracy" in result.output
    assert "no test split" not in result.output


def test_mistakes_are_reported(here: Path) -> None:
    torch.save({"a": torch.zeros(1)}, "other.pth")
    for arguments, words in (
        (["--weights", "other.pth"], "missing"),
        (["--weights", "pruned.pth", "--classes", "7"], "another number of classes"),
        (["--weights", "pruned.pth", "--input", "5x8x8"], "does not take an input"),
    ):
        result = run("compile", NETWORK, *arguments)
        assert result.exit_code == 1, result.output
        assert words in " ".join(result.output.split()), result.output


@pytest.mark.slow
def test_several_inputs_and_whole_numbers(answering: None, here: Path) -> None:
    net = Answer(3).eval()
    session = onnxruntime.InferenceSession(here / "asked/export/onnx/model.onnx")
    image, words = torch.randn(3, 3, 8, 8), torch.randint(0, 11, (3, 5))
    given = [value.name for value in session.get_inputs()]
    outputs = session.run(None, {given[0]: image.numpy(), given[1]: words.numpy()})[0]
    with torch.no_grad():
        assert np.abs(net(image, words).numpy() - outputs).max() < 1e-5
    assert onnx.load(here / "asked/export/onnx/model.onnx").opset_import[0].version == 12
    costs = json.loads(run("count", "asked", "--json").output)
    assert list(costs) == [
        "dense",
        "00-zero-tiny-weights",
        "01-remove-channels",
        "02-fold-batchnorm",
        "export/onnx",
    ]
    assert costs["dense"]["nonzero_macs"] > costs["export/onnx"]["macs"]
    assert costs["02-fold-batchnorm"]["macs"] == costs["export/onnx"]["macs"]
    table = run("count", "asked").output
    assert f"{costs['dense']['macs']:,}" in table
    refused = run("count", "asked", "--input", "3x8x8")
    assert refused.exit_code == 1
    assert "has its own inputs" in refused.output


@pytest.mark.slow
def test_a_form_that_cannot_be_written_leaves_the_others_proven(here: Path) -> None:
    """C has no integers: the ONNX file before it is recorded, and can be verified."""
    result = run(*ANSWER, "-o", "half", *INPUTS, "--onnx", "--c")
    assert result.exit_code == 1, result.output
    assert "C has no" in result.output or "C takes" in result.output, result.output
    assert manifest(here / "half")["macs"] > 0
    assert not list((here / "half").rglob("*.c"))
    result = run("verify", "half")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        (("--input", "3x8x8"), "does not take an input"),
        (("--input", "3x8x8", "--input", "5"), "does not take an input"),
        (("--input", "3x8x8", "--input", "5:int3"), "is not an input"),
        ((*INPUTS, "--opset", 8), "opset must be at least 9"),
    ],
)
def test_inputs_that_do_not_fit_leave_no_run(
    here: Path, inputs: tuple[str, ...], told: str
) -> None:
    result = run(*ANSWER, "-o", "refused", *inputs)
    assert result.exit_code == (3 if told == "is not an input" else 1), result.output
    assert told in " ".join(result.output.split()), result.output
    assert not (here / "refused").exists()


@pytest.mark.slow
def test_a_network_of_timm(here: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=5)
    torch.save(net.state_dict(), "timm.pth")
    result = run("compile", "timm:test_resnet", "--weights", "timm.pth", "-o", "timm")
    assert result.exit_code == 0, result.output
    shape = onnxruntime.InferenceSession(here / "timm/export/onnx/model.onnx").get_inputs()[0].shape
    assert shape[1:] == list(net.default_cfg["input_size"])
    refused = run("compile", "timm:no_such_network")
    assert refused.exit_code == 1
    assert "no_such_network" in refused.output


@pytest.mark.slow
def test_a_file_that_fails_ends_with_2_and_does_not_ship(answering: None, here: Path) -> None:
    recipe = here / "asked/recipe.toml"
    strict = recipe.read_text().replace("latency_ratio = false", "macs_ratio = 0.01")
    (here / "strict.toml").write_text(strict)
    result = run("export", "strict.toml", "-o", "strict.onnx")
    assert result.exit_code == 2, result.output
    assert not (here / "strict.onnx").exists()
    (here / "recipe.toml").write_text(recipe.read_text())
    result = run("export", "recipe.toml", "-o", "net.onnx", "--opset", 11, "--ir-version", 5)
    assert result.exit_code == 0, result.output
    written = onnx.load(here / "net.onnx")
    assert (written.opset_import[0].version, written.ir_version) == (11, 5)
