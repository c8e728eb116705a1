"""`prunec data check`: every image is read, counted and timed, every damaged one found."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from photographs import noise, photograph, spec_of, write_folders, write_shards
from typer.testing import CliRunner, Result

from prunec.batches.data_check import check_data
from prunec.batches.data_findings import DataFindings
from prunec.cli.commands import app
from prunec.cli.data_tables import pace_table
from prunec.recipe import DataSpec
from prunec.training import pace

RECIPE = """
name = "small"
[model]
name = "resnet18"
[data]
name = "{name}"
root = "{root}"
prepare = [{{ name = "Resize", size = 18 }}, {{ name = "CenterCrop", size = 16 }}]
[train]
epochs = 1
[[pass]]
name = "train-dense"
"""


def check(spec: DataSpec) -> DataFindings:
    return check_data(spec, seed=0, report=lambda *_: None)


def command(root: Path, *more: str, name: str = "imagefolder") -> Result:
    recipe = root / "small.toml"
    recipe.write_text(RECIPE.format(name=name, root=root))
    return CliRunner().invoke(app, ["data", "check", str(recipe), *more])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sound_set_is_counted(tmp_path: Path, workers: int) -> None:
    write_folders(tmp_path, train=5, val=2)
    (tmp_path / "train" / "class2" / "big.png").write_bytes(photograph(1, 2, size=(40, 50)))
    findings = check(spec_of(tmp_path, "imagefolder", workers=workers))
    train, test = findings.splits
    assert findings.passed
    assert not findings.doubts
    assert (train.images, train.per_class, test.per_class) == (16, (5, 5, 6), (2, 2, 2))
    assert train.sizes == ((24, 20), (24, 20), (50, 40))
    assert train.outputs == test.outputs == ((3, 16, 16),)
    assert train.decoded_a_second is not None
    assert train.decoded_a_second > train.prepared_a_second > 0


def test_every_damaged_image_is_found_and_no_other(tmp_path: Path) -> None:
    write_folders(tmp_path)
    damaged = {
        tmp_path / "train" / "class0" / "000000.png": b"",  # the first: training would not begin
        tmp_path / "train" / "class1" / "000010.png": noise()[:-40],
        tmp_path / "val" / "class2" / "000008.png": b"<html>",
    }
    for path, content in damaged.items():
        path.write_bytes(content)
    (tmp_path / "val" / "class0" / "small.png").write_bytes(photograph(0, 0, size=(9, 99)))
    findings = check(spec_of(tmp_path, "imagefolder"))
    assert {problem.image for problem in findings.problems} == set(map(str, damaged))
    assert [problem.split for problem in findings.problems] == ["train", "train", "test"]
    assert findings.problems[0].reason == "cannot be read as an image: it is empty"
    assert findings.splits[0].per_class == (5, 5, 6)


def test_a_damaged_sample_of_a_shard_is_found(tmp_path: Path) -> None:
    write_shards(tmp_path, {"train": [4, 4], "val": [2]})
    shard = tmp_path / "train-000001.tar"
    content = shard.read_bytes()
    shard.write_bytes(content.replace(photograph(6, 0), bytes(len(photograph(6, 0)))))
    findings = check(spec_of(tmp_path))
    assert [problem.image for problem in findings.problems] == [f"{shard}: 000006.png"]
    assert findings.splits[0].images == 8


def test_a_jpeg_that_decodes_with_complaints_is_doubted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_folders(tmp_path)
    content = bytearray(noise((200, 160)))
    content[3000:3300] = bytes(300)
    path = tmp_path / "val" / "class1" / "000001.png"
    path.write_bytes(content)
    findings = check(spec_of(tmp_path, "imagefolder"))
    assert findings.passed
    assert [doubt.image for doubt in findings.doubts] == [str(path)]
    assert "Corrupt JPEG data" in findings.doubts[0].reason
    assert not capfd.readouterr().err


def test_images_that_do_not_fit_the_transforms_are_found(tmp_path: Path) -> None:
    write_folders(tmp_path)
    small = tmp_path / "train" / "class0" / "small.png"
    small.write_bytes(photograph(0, 0, size=(12, 12)))
    findings = check(
        spec_of(tmp_path, "imagefolder", augment=({"name": "RandomCrop", "size": 16},))
    )
    assert [problem.image for problem in findings.problems] == [str(small)]
    assert "an image of 3×12×12" in findings.problems[0].reason


def test_transforms_that_end_in_several_sizes_are_found(tmp_path: Path) -> None:
    write_folders(tmp_path)
    (tmp_path / "val" / "class0" / "b.png").write_bytes(photograph(0, 0, size=(30, 24)))
    findings = check(spec_of(tmp_path, "imagefolder", prepare=(), augment=()))
    assert len(findings.problems) == 1
    assert "2 sizes" in findings.problems[0].reason
    assert "3×24×30" in findings.problems[0].reason


@pytest.mark.slow
def test_a_set_in_memory_is_counted() -> None:
    findings = check(DataSpec())
    train, test = findings.splits
    assert (train.per_class, test.per_class) == ((1200,) * 10, (200,) * 10)
    assert (train.decoded_a_second, train.sizes[0], train.outputs) == (
        None,
        (28, 28),
        ((1, 28, 28),),
    )


def test_the_command_shows_a_sound_set(tmp_path: Path) -> None:
    write_folders(tmp_path)
    result = command(tmp_path, "--workers", "2")
    assert result.exit_code == 0, result.output
    assert "2 workers" in result.output
    assert "All 27 images can be trained on." in result.output


def test_the_command_lists_damage_and_exits_with_two(tmp_path: Path) -> None:
    write_folders(tmp_path, train=9)
    for number in range(24):
        (tmp_path / "train" / f"class{number % 3}" / f"{number:06d}.png").write_bytes(b"")
    result = command(tmp_path)
    assert result.exit_code == 2
    assert "24 problems in 36 images." in result.output
    assert "and 4 more: --json lists all" in result.output
    result = command(tmp_path, "--json")
    assert result.exit_code == 2
    report = json.loads(result.stdout)
    assert not report["passed"]
    assert len(report["problems"]) == 24
    assert report["splits"][0]["per_class"] == [1, 1, 1]


def test_the_command_names_empty_classes(tmp_path: Path) -> None:
    write_shards(tmp_path, {"train": [4], "val": [2]})
    result = command(tmp_path, name="webdataset")
    assert result.exit_code == 0
    assert "test: classes without a readable image: 2" in result.output


def test_broken_shards_exit_with_two(tmp_path: Path) -> None:
    write_shards(tmp_path, {"train": [4], "val": [2, 2, 2]})
    for number in (0, 2):
        shard = tmp_path / f"val-00000{number}.tar"
        shard.write_bytes(shard.read_bytes()[:1000])
    result = command(tmp_path, "--json", name="webdataset")
    assert result.exit_code == 2
    (problem,) = json.loads(result.stdout)["problems"]
    assert re.search(r"val-000000\.tar cannot .*val-000002\.tar cannot", problem["reason"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "data.root=nowhere"], "no images were found in nowhere"),
        (["--set", 'data.prepare=[{ name = "Resise" }]'], "'Resise' is not a class"),
        (["--set", "data.rot=x"], "data.rot"),
    ],
)
def test_a_mistake_exits_with_one(tmp_path: Path, more: Any, message: str) -> None:
    result = command(tmp_path, *more)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "remedy: " in result.stderr


def test_the_pace_of_data_and_steps_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --device alone, as numbers or as a sentence."""
    for name in ("WARM", "LEAST", "MOST"):
        monkeypatch.setattr(pace, name, 2)
    write_folders(tmp_path, train=6, val=2)
    small = ("--set", "train.batch_size=4", "--set", "model.name=end_to_end_net:Tiny")
    own = ("--set", "data.workers=0", "--set", "train.precision=fp32")
    result = command(tmp_path, "--device", "cpu", "--json", *small, *own)
    told = json.loads(result.stdout)["pace"]
    assert told["device"] == "cpu"
    assert told["bound"] == ("data" if told["data"] < told["steps"] else "steps")
    assert 0 < told["together"] <= min(told["data"], told["steps"])


def test_data_and_steps_run_side_by_side_with_workers_and_in_turns_without() -> None:
    """And the sentence for people names the slower one."""
    with_workers = pace.Pace("cuda", 64, data=1000.0, steps=3000.0, workers=4)
    assert (with_workers.bound, with_workers.together) == ("data", 1000.0)
    in_memory = pace.Pace("cuda", 64, data=3000.0, steps=1000.0, workers=0)
    assert (in_memory.bound, in_memory.together) == ("steps", 750.0)
    for one, said in ((with_workers, "Data bound the training"), (in_memory, "75 % of the steps'")):
        assert said in str(pace_table(one)[1])
