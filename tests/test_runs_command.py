"""`prunec runs`: a list that fits a narrow terminal, `rm` that asks, `diff`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from prunec.cli.commands import app
from prunec.cli.runs import age_text
from prunec.recipe import load_recipe
from prunec.store.new_runs import create_run
from prunec.store.runs import RunFolder

NAMES = ("gdp_mbv2", "gdp_mbv2_imagenet", "str_rank_fastgrnn_speech")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunFolder]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRUNEC_RUNS", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    made = [create_run(load_recipe(name), Path("runs")) for name in NAMES]
    for run, status in zip(made, ("exported", "interrupted", "failed"), strict=True):
        run.mark(status)  # type: ignore[arg-type]
        run.metrics.write_text(json.dumps({"epoch": 7, "test_accuracy": 88.85, "loss": 0.3}) + "\n")
        step = run.step(0, "train-gdp")
        step.mkdir(parents=True)
        history = [{"macs": [3324384, 1653672], "params": [9, 5], "seconds": 2.5}]
        (step / "artifact.json").write_text(json.dumps({"history": history}))
    return made


def run(*arguments: str, typed: str = "") -> Any:
    return CliRunner().invoke(app, ["runs", *arguments], input=typed)


@pytest.mark.parametrize("columns", [80, 120])
def test_the_list_is_readable(
    runs: list[RunFolder], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    result = run()
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= columns
    assert "…" not in result.stdout
    for word in ("gdp_mbv2-001", "exported", "interrupted 7/100", "failed 7/100", "88.85 %",
                 "1.65 M (49.7 %)", "s"):  # fmt: skip
        assert word in result.stdout
    if columns == 120:
        assert all(one.name in result.stdout for one in runs)


def test_machines_read_it_too(runs: list[RunFolder]) -> None:
    content = json.loads(run("--json").stdout)
    assert [one["name"] for one in content] == [one.name for one in runs]
    assert content[0]["state"] == "exported"
    assert (content[0]["value"], content[0]["quality"]) == (88.85, "accuracy")
    assert (content[0]["macs"], content[0]["dense_macs"]) == (1653672, 3324384)
    assert 0 <= content[0]["age"] < 600
    assert json.loads(run("--json", "--runs", "elsewhere").stdout) == []
    assert "prunec train" in run("--runs", "elsewhere").stdout


def test_rm_asks_first(runs: list[RunFolder]) -> None:
    silent = run("rm", runs[0].name)
    assert silent.exit_code == 1
    assert "--yes" in silent.stderr
    assert all(one.path.is_dir() for one in runs)
    gone = run("rm", runs[0].name, "runs/" + runs[1].name, runs[0].name, "--yes")
    assert gone.exit_code == 0, gone.output
    assert [one.path.exists() for one in runs] == [False, False, True]
    assert gone.stdout.count("Deleted") == 2


def test_rm_deletes_all_or_nothing(runs: list[RunFolder], tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    for wrong in ("nonsense", "precious", ".", "..", "runs", "gdp_mbv2"):
        result = run("rm", runs[0].name, wrong, "--yes")
        assert result.exit_code == 1
        assert f"there is no run {wrong}" in result.stderr
        assert runs[0].name in result.stderr
    with FileLock(runs[1].path / ".lock"):
        result = run("rm", runs[0].name, runs[1].name, "--yes")
        assert result.exit_code == 1
        assert "another process is working" in result.stderr
    assert all(one.path.is_dir() for one in runs)
    assert (tmp_path / "precious").is_dir()


def test_a_damaged_run_is_listed_and_can_go(runs: list[RunFolder]) -> None:
    (runs[0].path / "run.json").write_text("{")
    assert "damaged" in run().stdout
    assert run("rm", runs[0].name, "--yes").exit_code == 0
    assert not runs[0].path.exists()


def test_diff_tells_keys_results_and_environment(runs: list[RunFolder]) -> None:
    other = create_run(load_recipe("gdp_mbv2", ["seed=3", "pass.0.dense_epochs=1"]), Path("runs"))
    record = json.loads((other.path / "environment.json").read_text())
    (other.path / "environment.json").write_text(json.dumps({**record, "torch": "1.0"}))
    result = run("diff", runs[0].name, other.name)
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= 80
    for word in ("seed", "pass[0].dense_epochs", "88.85", "1,653,672", "torch", "1.0"):
        assert word in result.stdout
    assert "train.batch_size" not in result.stdout
    content = json.loads(run("diff", runs[0].name, other.name, "--json").stdout)
    assert content["recipe"]["seed"] == [0, 3]
    assert content["recipe"]["pass[0].dense"] == [0.25, None]
    assert content["environment"] == {"torch": [record["torch"], "1.0"]}
    same = run("diff", runs[0].name, runs[0].name)
    assert "The recipes are equal." in same.stdout
    assert run("diff", runs[0].name, "none").exit_code == 1


def test_ages_are_reported_in_their_largest_unit() -> None:
    told = [age_text(s) for s in (None, -3, 0, 59, 60, 3599, 3600, 86399, 86400, 9e6)]
    assert told == ["—", "0 s", "0 s", "59 s", "1 min", "59 min", "1 h", "23 h", "1 d", "104 d"]


@pytest.mark.parametrize(
    ("words", "index"),
    [("prunec runs rm str", 3), ("prunec runs diff gdp_mbv2-001 str", 4), ("prunec export str", 2),
     ("prunec export --runs runs str", 4)],
)  # fmt: skip
def test_the_shell_completes_runs(runs: list[RunFolder], words: str, index: int) -> None:
    environment = {
        **os.environ, "_PRUNEC_COMPLETE": "complete_bash", "COMP_WORDS": words,
        "COMP_CWORD": str(index),
    }  # fmt: skip
    code = "import sys; from prunec.cli.commands import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert runs[2].name in done.stdout
    assert runs[0].name not in done.stdout
