"""Records: what is read is what was written, or it is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_folders import new_run

from prunec.artifact import Step
from prunec.cost import Cost, LayerCost
from prunec.deploy.checks.records import compare_history, compare_manifest
from prunec.errors import DamagedRecord, RunError
from prunec.store.finding import open_run
from prunec.store.records import DIGEST, parse_record, read_record, record_digest, record_text


def test_a_record_is_read_back_and_its_digest_does_not_count_itself(tmp_path: Path) -> None:
    said = {"a": 1.5, "b": [float("nan"), {"c": None}]}
    (tmp_path / "r.json").write_text(record_text(said))
    actual = read_record(tmp_path / "r.json")
    assert actual.pop(DIGEST) == record_digest(said)
    assert json.dumps(actual) == json.dumps(said)


def test_an_edited_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(record_text({"epoch": 1}).replace("1", "1000000000", 1))
    with pytest.raises(DamagedRecord, match=r"r\.json was changed after it was written"):
        parse_record(path)


def test_a_record_without_a_digest_is_of_an_earlier_build_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text('{"epoch": 1}')
    assert parse_record(path) == {"epoch": 1}
    with pytest.raises(DamagedRecord, match="has no digest"):
        read_record(path)


@pytest.mark.parametrize("key", ["epochs = 6", "macs_ratio = 0.5"])
def test_an_edited_recipe_is_refused(tmp_path: Path, key: str) -> None:
    run = new_run(tmp_path)
    path = run.path / "recipe.toml"
    assert key in path.read_text()
    path.write_text(path.read_text().replace(key, key.replace("6", "7").replace("0.5", "0.9")))
    with pytest.raises(RunError, match="not the recipe that the run started with") as caught:
        assert run.recipe
    assert "prunec train FILE" in caught.value.remedy


def test_where_the_data_lie_may_change_and_the_folder_may_move(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    path = run.path / "recipe.toml"
    path.write_text(path.read_text().replace('root = "data"', 'root = "/elsewhere"'))
    moved = open_run(run.path.rename(tmp_path / "moved"))
    assert moved.recipe.data.root == "/elsewhere"
    assert moved.identity


def test_a_run_of_an_earlier_build_is_read(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    new = ("id", "steps", "digest_anywhere")
    old = {key: value for key, value in run.record.items() if key not in new}
    (run.path / "run.json").write_text(json.dumps(old))
    assert open_run(run.path).recipe
    assert run.identity == ""
    run.mark("trained")
    assert run.identity == ""


def cost(macs: int) -> Cost:
    return Cost((LayerCost("c", "conv2d", macs, macs, 9, 9),), 9, 9)


def step(before: int, after: int) -> Step:
    return Step("remove-channels", {}, (), (before, after), (9, 9), None, 1.0, "digest")


def test_costs_that_were_written_down_are_counted_again() -> None:
    assert compare_history((step(50, 20),), cost(20), cost(50)).passed
    actual = compare_history((step(900, 20),), cost(20), cost(50))
    assert "the dense network has 50 MACs" in actual.message
    assert not compare_history((step(50, 10),), cost(20), cost(50)).passed
    assert not compare_history((), cost(20), cost(50)).passed
    assert not compare_history((step(50, 30), step(31, 20)), cost(20), cost(50)).passed


def test_a_manifest_that_is_missing_or_says_something_else_fails() -> None:
    assert compare_manifest({"macs": 1, "prunec": "x"}, {"macs": 1}, "").passed
    assert "macs was 2, now it is 1" in compare_manifest({"macs": 2}, {"macs": 1}, "").message
    assert "has no entry" in compare_manifest({}, {"macs": 1}, "").message
    assert "is missing" in compare_manifest({"macs": 1}, {"macs": 1}, "m is missing").message
