"""Sequences: HAR and speech commands read in their own formats, damage told by its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sequence_files import tone, write_har, write_speech, write_wav
from torch import Tensor
from typer.testing import CliRunner

from prunec.batches.data import load_data
from prunec.batches.data_check import check_data
from prunec.cli.commands import app
from prunec.datasets.log_mel import FILTERS, filters, log_mel
from prunec.datasets.named import read_source
from prunec.datasets.speech import Clips, read_second
from prunec.errors import DamagedData, DataError
from prunec.processes import Processes
from prunec.recipe import DataSpec

PLAIN: dict[str, Any] = {"mean": (0.0,), "std": (1.0,)}


def spec(name: Any, root: Path, **more: Any) -> DataSpec:
    return DataSpec(name=name, root=str(root), **{**PLAIN, **more})


def all_of(batches: Any) -> tuple[Tensor, Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def check(given: DataSpec) -> Any:
    return check_data(given, seed=0, report=lambda *_: None)


# -- HAR -------------------------------------------------------------------------------------------


def test_har_is_standardised_by_its_training_split(tmp_path: Path) -> None:
    """Signals are noise about 0…8 with deviations 1…9; what comes is the file, number by number."""
    folder = write_har(tmp_path, train=40)
    data = load_data(spec("har", tmp_path), seed=0)
    assert (data.shape, data.classes, data.train_size, data.test_size) == ((9, 1, 128), 6, 40, 6)
    assert data.labels[:2] == ("walking", "walking_upstairs")
    images, labels = all_of(data.train_batches(0, 8))
    assert images.dtype == torch.float32
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(9), atol=1e-5, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3), correction=0), torch.ones(9))
    path = folder / "train" / "Inertial Signals" / "body_gyro_y_train.txt"
    written = np.loadtxt(path)
    expected = (written - written.mean()) / written.std()
    ordered = images[data.order(0).argsort()]
    np.testing.assert_allclose(ordered[:, 4, 0].numpy(), expected, atol=1e-4)
    assert labels[data.order(0).argsort()].tolist() == [k % 6 for k in range(40)]


def test_har_is_found_in_its_folder_or_above(tmp_path: Path) -> None:
    folder = write_har(tmp_path)
    above, inside = (load_data(spec("har", root), seed=0) for root in (tmp_path, folder))
    assert torch.equal(all_of(above.test_batches(9))[0], all_of(inside.test_batches(9))[0])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train/y_train.txt", "1\n9\n", "a number that is not from 1 to 6"),
        ("train/y_train.txt", "1\n2\n", "it has 12 lines, y_train.txt has 2"),
        ("test/Inertial Signals/total_acc_z_test.txt", "", "0 numbers per line, 128 are needed"),
        ("test/Inertial Signals/total_acc_z_test.txt", "1 2\n", "2 numbers per line"),
        ("test/Inertial Signals/total_acc_z_test.txt", "1 two\n", "could not convert"),
        ("test/Inertial Signals/total_acc_z_test.txt", "1 2\n3\n", "number of columns changed"),
        ("train/Inertial Signals/body_acc_x_train.txt", "nan " * 128, "not finite"),
        ("train/Inertial Signals/body_acc_x_train.txt", "\xe9", "not a text of numbers"),
        ("activity_labels.txt", "2 WALKING\n", "number the activities from 1"),
    ],
)
def test_a_damaged_file_of_har_is_named(
    tmp_path: Path, file: str, content: str, message: str
) -> None:
    path = write_har(tmp_path) / file
    path.write_text(content, "latin-1")
    with pytest.raises(DamagedData, match=message) as caught:
        load_data(spec("har", tmp_path), seed=0)
    assert str(path) in caught.value.message or path.name in caught.value.message
    findings = check(spec("har", tmp_path))
    assert not findings.passed


def test_what_har_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"activity_labels\.txt cannot be read") as caught:
        load_data(spec("har", tmp_path), seed=0)
    assert "archive.ics.uci.edu" in caught.value.remedy
    path = write_har(tmp_path) / "test" / "Inertial Signals" / "body_acc_z_test.txt"
    path.unlink()
    with pytest.raises(DataError, match=r"body_acc_z_test\.txt cannot be read: no such file"):
        load_data(spec("har", tmp_path), seed=0)


# -- speech ----------------------------------------------------------------------------------------


def test_log_mel_is_its_definition() -> None:
    """Frame by frame through a plain DFT in float64, the filters by interpolation."""
    torch.manual_seed(0)
    samples = 0.1 * torch.randn(16000)
    actual = log_mel(samples)
    assert actual.shape == (32, 1, 99)
    padded = np.concatenate([samples.double().numpy(), np.zeros(80)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    angles = -2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512
    ends = 2595 * np.log10(1 + np.array([20.0, 8000.0]) / 700)
    corners = 700 * (10 ** (np.linspace(*ends, 34) / 2595) - 1)
    hertz = np.arange(257) * 16000 / 512
    for frame in (0, 1, 50, 98):
        power = np.abs(np.exp(angles) @ (window * padded[160 * frame : 160 * frame + 400])) ** 2
        for band in (0, 7, 31):
            height = np.interp(hertz, corners[band : band + 3], [0, 1, 0])
            expected = np.log(height @ power + 1e-6)
            assert float(actual[band, 0, frame]) == pytest.approx(expected, abs=1e-3)


def test_a_tone_is_in_its_filter() -> None:
    """A filter that holds 1 kHz is the loudest; no filter of the 32 is empty."""
    actual = log_mel(torch.from_numpy(tone(1000.0)).float() / 32768)
    loudest = int(actual.mean((1, 2)).argmax())
    assert float(filters()[round(1000 * 512 / 16000), loudest]) > 0
    assert bool((filters().sum(0) > 0).all())
    assert filters().shape == (257, FILTERS)


def test_every_word_is_a_class(tmp_path: Path) -> None:
    data = load_data(spec("speech-commands", write_speech(tmp_path)), seed=0)
    assert data.shape == (32, 1, 99)
    assert data.labels == ("bed", "cat", "down", "go", "left", "no", "off", "on", "right", "stop",
                           "up", "yes")  # fmt: skip
    assert (data.train_size, data.test_size) == (24, 12)  # the clips for validation are in neither
    images, labels = all_of(data.train_batches(0, 24))
    assert sorted(labels.tolist()) == sorted(list(range(12)) * 2)
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(32), atol=1e-4, rtol=0)
    assert all_of(data.test_batches(12))[1].tolist() == list(range(12))


def test_twelve_classes_have_silence_and_others(tmp_path: Path) -> None:
    words = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "bed", "cat")
    root = write_speech(tmp_path, each=9, words=words)
    data = load_data(spec("speech-commands-12", root), seed=0)
    assert data.labels[-2:] == ("silence", "unknown")
    labels = all_of(data.train_batches(0, data.train_size))[1]
    assert labels.bincount(minlength=12).tolist() == [7] * 12  # a tenth of 70 each
    again = load_data(spec("speech-commands-12", root), seed=5)
    one, two = (all_of(d.test_batches(99))[0] for d in (data, again))
    assert torch.equal(one, two)  # the set is the same for every seed
    source = read_source(spec("speech-commands-12", root))
    assert isinstance(source.train, Clips)
    names = {source.train.name(i).split("/")[-2] for i in range(len(source.train))}
    assert names == {*words, "_background_noise_"}


def test_a_clip_is_a_second_of_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, np.arange(-8000, 8000, 2))
    samples = read_second(path)
    assert samples.shape == (16000,)
    assert samples[:3].tolist() == [-8000 / 32768, -7998 / 32768, -7996 / 32768]
    assert not bool(samples[8000:].any())
    write_wav(path, np.arange(20000) % 30000)
    assert read_second(path, 5000)[:2].tolist() == [5000 / 32768, 5001 / 32768]
    assert int((read_second(path, 5000) != 0).sum()) == 15000


def test_processes_share_sequences(tmp_path: Path) -> None:
    for name, root in (("har", tmp_path / "h"), ("speech-commands", tmp_path / "s")):
        write_har(root) if name == "har" else write_speech(root)
        data = load_data(spec(name, root), seed=0)
        whole = all_of(data.train_batches(1, 6))
        parts = [data.to(data.device, Processes(rank, 2)).train_batches(1, 6) for rank in range(2)]
        batches = [all_of(pair) for pair in zip(*parts, strict=True)]
        assert torch.equal(torch.cat([b[0] for b in batches]), whole[0])


DAMAGED = {
    "empty": (b"", "it ends too early"),
    "web page": (b"<html>not found</html>", "RIFF"),
    "cut": (b"RIFF\x24\x00\x00\x00WAVE", "missing"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_clip_is_found_by_the_check(tmp_path: Path, kind: str) -> None:
    content, reason = DAMAGED[kind]
    root = write_speech(tmp_path)
    path = root / "go" / "2_nohash_0.wav"
    path.write_bytes(content)
    findings = check(spec("speech-commands", root))
    (problem,) = findings.problems
    assert problem.image == str(path)
    assert reason in problem.reason
    with pytest.raises(DamagedData, match=r"2_nohash_0\.wav cannot be read"):
        all_of(load_data(spec("speech-commands", root), seed=0).train_batches(0, 24))


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 2)])
def test_a_clip_of_another_format_is_refused(tmp_path: Path, rate: int, channels: int) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, tone(300), rate, channels)
    with pytest.raises(DamagedData, match=f"it has {rate} Hz, {channels} channels and 16 bits"):
        read_second(path)


def test_what_speech_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no WORD/\*\.wav was found") as caught:
        read_source(spec("speech-commands", tmp_path / "nowhere"))
    assert "speech_commands_v0.02" in caught.value.remedy
    root = write_speech(tmp_path, words=("yes", "no"))
    with pytest.raises(DataError, match="lacks up, down"):
        read_source(spec("speech-commands-12", root))
    (root / "testing_list.txt").write_text("")
    with pytest.raises(DataError, match="has no test file"):
        read_source(spec("speech-commands", root))
    (root / "testing_list.txt").unlink()
    with pytest.raises(DataError, match=r"testing_list\.txt cannot be read"):
        read_source(spec("speech-commands", root))


RECIPE = """
name = "small"
[model]
name = "prunec.models.fastgrnn:fastgrnn"
options = {{ inputs = 9, hidden = 8 }}
[data]
name = "{name}"
root = "{root}"
mean = [0.0]
std = [1.0]
[train]
epochs = 1
[[pass]]
name = "train-dense"
"""


def test_the_command_tells_what_was_taken_out(tmp_path: Path) -> None:
    folder = write_har(tmp_path)
    recipe = tmp_path / "small.toml"
    recipe.write_text(RECIPE.format(name="har", root=tmp_path))
    result = CliRunner().invoke(app, ["data", "check", str(recipe), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert len(report["standard"]["mean"]) == 9
    assert report["standard"]["std"][8] == pytest.approx(9, rel=0.1)
    result = CliRunner().invoke(app, ["data", "check", str(recipe)])
    assert "Features are standardised. Means:" in result.output
    (folder / "test" / "y_test.txt").write_text("one\n")
    result = CliRunner().invoke(app, ["data", "check", str(recipe)])
    assert result.exit_code == 2
    assert "y_test.txt" in result.output
