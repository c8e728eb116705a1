"""Files that take images as bytes: the answers to images normalised outside, in every form."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from senders import exported, run
from torch import nn

from prunec.batches.transforms import build_normalisation
from prunec.deploy.checks.random_inputs import random_batches
from prunec.deploy.checks.samples import Flip, pictured
from prunec.models.raw_images import LAYOUTS, AsBytes, RawImages, bytes_of
from prunec.pipeline import predict, verify_bundle
from prunec.pipeline.raw_images import layout_of

CODE = """
from torch import nn

def build(num_classes):
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(4),
                         nn.Flatten(), nn.Linear(64, num_classes))
"""
RECIPE = """
name = "raw"
[model]
name = "a_network_of_bytes:build"
[[pass]]
name = "remove-channels"
[[pass]]
name = "fold-batchnorm"
[verify.budget]
latency_ratio = false
"""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bytes_are_normalised_as_outside(layout: str) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (3, 3, 5, 7), generator=generator).to(torch.uint8)
    normalised = build_normalisation(MEAN, STD, 3)(images)
    network = nn.Flatten().eval()
    raw = RawImages(network, MEAN, STD, layout)
    given = AsBytes(layout)(images)
    assert given.shape == ((3, 5, 7, 3) if layout == "nhwc" else images.shape)
    torch.testing.assert_close(raw(given), network(normalised), rtol=0, atol=2e-6)
    assert torch.equal(bytes_of(normalised, MEAN, STD, layout), given)
    assert torch.equal(raw.double()(given), raw(given))
    with pytest.raises(TypeError, match="after their transforms"):
        AsBytes(layout)(normalised)


def test_random_images_of_bytes_take_every_value() -> None:
    example = (torch.zeros(2, 16, 16, 3, dtype=torch.uint8),)
    drawn = torch.cat([batch[0] for batch in random_batches(example, 3)])
    assert drawn.dtype == torch.uint8
    assert len(torch.unique(drawn)) == 256


@pytest.fixture(scope="module")
def sender(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, exported as fp32, int8 and ort."""
    root = tmp_path_factory.mktemp("raw")
    raw = ("--with-preprocessing", "nhwc", "--int8", "--ort")
    wishes = (*raw, "--bundle", "b.zip", "--runs", "runs")
    result = exported(root, "a_network_of_bytes", CODE, RECIPE, *wishes)
    (root / "told.txt").write_text(result.output)
    return root


@pytest.mark.slow
def test_files_take_bytes_and_say_so(sender: Path) -> None:
    (run_folder,) = (sender / "runs").iterdir()
    manifest = json.loads((run_folder / "export" / "manifest.json").read_text())
    for form in ("onnx", "int8", "ort"):
        entry = manifest[form]
        assert layout_of(entry) == "nhwc"
        said = entry["feeding"]
        assert said["inputs"] == [{"shape": [28, 28, 1], "type": "uint8", "layout": "NHWC"}]
        assert said["normalised_by"] == "the file itself"
        assert "uint8 [28, 28, 1]: height, width, channels" in said["how_to_feed"]
        session = onnxruntime.InferenceSession(run_folder / "export" / entry["file"])
        (given,) = session.get_inputs()
        assert (given.type, given.shape[1:]) == ("tensor(uint8)", [28, 28, 1])


def test_a_bundle_of_bytes_is_checked_and_answers_images(sender: Path, tmp_path: Path) -> None:
    assert verify_bundle(sender / "b.zip").passed
    with zipfile.ZipFile(sender / "b.zip") as archive:
        archive.extractall(tmp_path / "b")
    golden = np.load(tmp_path / "b" / "golden" / "input_0.npy")
    assert (golden.dtype, golden.shape[1:]) == (np.dtype(np.uint8), (28, 28, 1))
    done = subprocess.run([sys.executable, tmp_path / "b" / "check.py"], capture_output=True)
    assert done.returncode == 0, done.stdout
    image = tmp_path / "shirt.png"
    Image.fromarray(golden[0, :, :, 0]).save(image)
    answers = [predict(sender / "b.zip", [image], form)[0] for form in ("onnx", "int8")]
    assert len({answer.best[0][0] for answer in answers}) == 1
    session = onnxruntime.InferenceSession(tmp_path / "b" / "onnx" / "model.onnx")
    scores = session.run(None, {"input": golden[:1]})[0][0]
    shares = np.exp(scores) / np.exp(scores).sum()
    # Grey once more: an image of three equal channels is a step darker here and there.
    assert answers[0].best[0][1] == pytest.approx(float(shares.max()), abs=2e-3)


@pytest.mark.slow
def test_a_run_of_bytes_is_verified_as_it_was_exported(
    sender: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sender)
    monkeypatch.syspath_prepend(str(sender))
    (run_folder,) = (sender / "runs").iterdir()
    result = run("verify", run_folder, "--json")
    assert result.exit_code == 0, result.output


def test_what_holds_no_image_is_refused(sender: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sender)
    monkeypatch.syspath_prepend(str(sender))
    result = run("compile", "a_network_of_bytes:build", "--input", "1x28x28", "--classes", "10",
                 "--with-preprocessing", "nchw", "--runs", "others")  # fmt: skip
    assert result.exit_code == 1
    assert "needs images, and the recipe names none" in " ".join(result.output.split())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("form", ["openvino", "litert", "executorch"])
def test_other_runtimes_take_bytes(
    form: str, sender: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = {"openvino": "openvino", "litert": "litert_torch", "executorch": "executorch"}[form]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install 'prunec[{form}]'")
    monkeypatch.chdir(sender)
    monkeypatch.syspath_prepend(str(sender))
    result = run("export", "raw.toml", f"--{form}", "--with-preprocessing", "nhwc", "--runs", form)
    assert result.exit_code == 0, result.output


def test_samples_of_bytes_are_pictured() -> None:
    image = torch.randint(256, (3, 20, 30)).to(torch.uint8)
    flips = [Flip(0, 0, 0, 1, given) for given in (image, AsBytes("nhwc")(image))]
    one, other = pictured(flips, MEAN, STD)
    assert one.png == other.png != ""
    normalised = Flip(0, 0, 0, 1, build_normalisation(MEAN, STD, 3)(image))
    assert pictured([normalised], MEAN, STD)[0].png == one.png
