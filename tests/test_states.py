"""In what state runs are, which one is meant where none is named, and what goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

from prunec.cli.selection import find_run, resumed_run
from prunec.errors import RunError
from prunec.recipe import Recipe, loads
from prunec.store.new_runs import create_run
from prunec.store.runs import RunFolder
from prunec.store.states import is_at_work, state_of, unfinished
from prunec.store.summaries import summary


def recipe(name: str = "small") -> Recipe:
    return loads(
        f'name = "{name}"\n[model]\nname = "resnet18"\n[train]\nepochs = 4\n'
        '[[pass]]\nname = "train-dense"\n'
    )


def made(root: Path, *statuses: str, name: str = "small") -> list[RunFolder]:
    runs = [create_run(recipe(name), root) for _ in statuses]
    for run, status in zip(runs, statuses, strict=True):
        if status == "damaged":
            (run.path / "run.json").write_text("{")
        else:
            run.mark(status)  # type: ignore[arg-type]
    return runs


def at_work(run: RunFolder) -> FileLock:
    lock = FileLock(run.path / ".lock")
    lock.acquire()
    return lock


def test_a_training_whose_process_is_gone_was_interrupted(tmp_path: Path) -> None:
    (run,) = made(tmp_path, "training")
    assert not is_at_work(run)
    assert not (run.path / ".lock").exists()  # to look changes nothing
    assert state_of(run) == "interrupted"
    with at_work(run):
        assert is_at_work(run)
        assert state_of(run) == "training"
    assert state_of(run) == "interrupted"


def test_the_latest_passes_over_what_failed_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = made(tmp_path, "exported", "failed")
    assert find_run(None, tmp_path) == good
    told = capsys.readouterr()
    assert good.name in told.err
    assert f"{bad.name} failed" in told.err
    assert not told.out  # machines read it
    assert find_run(good.name, tmp_path) == good
    assert not capsys.readouterr().err


def test_the_latest_passes_over_what_still_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, busy = made(tmp_path, "trained", "training")
    with at_work(busy):
        assert find_run("small", tmp_path) == good
        assert f"{busy.name} is training" in capsys.readouterr().err
        assert find_run(busy.name, tmp_path) == busy
    assert find_run(None, tmp_path) == busy  # it was interrupted: whoever exports it hears so


def test_where_none_is_finished_it_says_which_are_there_and_what_goes_on(tmp_path: Path) -> None:
    first, last = made(tmp_path, "failed", "failed")
    with pytest.raises(RunError, match="no run in") as caught:
        find_run(None, tmp_path)
    assert first.name in caught.value.message
    assert str(last.path) in caught.value.remedy


@pytest.mark.parametrize("status", ["interrupted", "failed", "training", "new"])
def test_what_goes_on_is_the_latest_that_is_not_finished(
    tmp_path: Path, status: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted, finished = made(tmp_path, status, "exported")
    assert resumed_run(None, [], tmp_path) == wanted
    assert f"{finished.name} is exported" in capsys.readouterr().err


def test_an_unfinished_run_says_how_far_it_came_and_why(tmp_path: Path) -> None:
    (run,) = made(tmp_path, "interrupted")
    run.metrics.write_text(json.dumps({"pass": "train-dense", "epoch": 2}) + "\n")
    error = unfinished(run)
    assert error.message == f"{run.path} is not fully trained: it was stopped after epoch 2"
    assert error.remedy == f"Finish its training: prunec train --resume {run.path}"
    run.mark("failed", "the loss became nan")
    error = unfinished(run)
    assert error.message.endswith("it failed after epoch 2: the loss became nan")
    assert f"prunec train {run.path}/recipe.toml" in error.remedy
    run.mark("training")
    assert "failure" not in run.record
    with at_work(run):
        assert f"Wait for {run.path}" in unfinished(run).remedy


def test_a_summary_reads_whatever_is_there(tmp_path: Path) -> None:
    (run,) = made(tmp_path, "interrupted")
    actual = summary(run)
    assert (actual.state, actual.epochs, actual.epoch, actual.value) == (
        "interrupted",
        4,
        None,
        None,
    )
    run.metrics.write_text('{"epoch": 1}\n{"epoch": 2, "test_accuracy": 51.5}\n')
    actual = summary(run)
    assert (actual.epoch, actual.quality, actual.value) == (2, "accuracy", 51.5)
    step = run.step(0, "train-dense")
    step.mkdir(parents=True)
    history = [{"macs": [100, 90]}, {"macs": [90, 50]}]
    (step / "artifact.json").write_text(json.dumps({"history": history}))
    run.export.path.mkdir()
    run.export.report.write_text(json.dumps({"forms": {"onnx": {"details": {"miou": 12.5}}}}))
    actual = summary(run)
    assert (actual.macs, actual.dense_macs, actual.quality, actual.value) == (50, 100, "miou", 12.5)
    for name in ("metrics.jsonl", "recipe.toml", "run.json", "steps/00-train-dense/artifact.json"):
        (run.path / name).write_bytes(b"\xff[{")
    actual = summary(run)
    assert (actual.state, actual.macs, actual.epochs) == ("damaged", None, None)
