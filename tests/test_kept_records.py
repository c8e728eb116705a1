"""Records of a run beside the digests that run.json keeps: changed, missing, of another run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from run_folders import exported_run, new_run, trained_run

from prunec.deploy.checks import Check
from prunec.page.reading import read_run
from prunec.pipeline.run_records import check_records
from prunec.store.kept_records import flaw_of, keep_records
from prunec.store.metrics import MetricsLog, last_digest, read_metrics
from prunec.store.records import record_text
from prunec.store.runs import RunFolder


def checked(run: RunFolder) -> Check:
    (actual,), untold = check_records(run)
    assert not untold
    return actual


def over(root: Path) -> RunFolder:
    """A run whose training is over."""
    run = trained_run(root)
    run.settings.write_text(record_text({"train-gdp": {"device": "cpu", "chosen": {}}}))
    keep_records(run, run.settings, run.metrics)
    return run


def test_records_as_they_were_written_pass(tmp_path: Path) -> None:
    actual = checked(over(tmp_path))
    assert actual.passed
    assert (actual.expected, actual.found) == (3, 3)


def edit(name: str, change: Callable[[str], str]) -> Callable[[RunFolder], object]:
    return lambda run: (run.path / name).write_text(change((run.path / name).read_text()))


def forged(text: str) -> str:
    return record_text({**json.loads(text), "python": "2.7"})


def lines(order: Callable[[list[str]], list[str]]) -> Callable[[str], str]:
    return lambda text: "".join(order(text.splitlines(keepends=True)))


DAMAGE: dict[str, tuple[Callable[[RunFolder], object], str]] = {
    "edited settings": (edit("settings.json", lambda t: t.replace("cpu", "gpu")), "settings.json"),
    "settings gone": (lambda run: run.settings.unlink(), "settings.json is missing"),
    "a forged environment": (edit("environment.json", forged), "environment.json is not what"),
    "environment without digest": (edit("environment.json", lambda t: "{}"), "has no digest"),
    "an edited line": (
        edit("metrics.jsonl", lambda t: t.replace('"loss": 2.0', '"loss": 0.2')),
        "line 1",
    ),
    "a line gone": (edit("metrics.jsonl", lines(lambda x: x[:2] + x[3:])), "line 3"),
    "the first line gone": (edit("metrics.jsonl", lines(lambda x: x[1:])), "line 1"),
    "the last line gone": (edit("metrics.jsonl", lines(lambda x: x[:-1])), "lines are missing"),
    "a line twice": (edit("metrics.jsonl", lines(lambda x: [*x, x[-1]])), "line 7"),
    "lines swapped": (edit("metrics.jsonl", lines(lambda x: x[::-1])), "line 1, 2, 3"),
    "no metrics": (lambda run: run.metrics.unlink(), "metrics.jsonl is missing"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_was_changed_fails_and_is_named_on_the_page(tmp_path: Path, name: str) -> None:
    run, (damage, told) = over(tmp_path), DAMAGE[name]
    assert not read_run(run).problems
    damage(run)
    actual = checked(run)
    assert not actual.passed
    assert actual.found == 2
    assert told in actual.message
    assert any(told.split(" is ")[0] in text for text in read_run(run).problems)


@pytest.mark.parametrize("key", ["created", "command", "prunec", "launch", "recipe", "more"])
def test_how_a_run_began_cannot_be_changed_by_a_record_that_fits(tmp_path: Path, key: str) -> None:
    run = over(tmp_path)
    (run.path / "run.json").write_text(record_text({**run.record, key: "another"}))
    actual = checked(run)
    assert not actual.passed
    assert "run.json was changed since the run was created" in actual.message


def test_records_of_another_run_fail(tmp_path: Path) -> None:
    run, other = over(tmp_path), over(tmp_path)
    MetricsLog(other.metrics, other.identity).append({"pass": "train-gdp", "epoch": 7})
    run.metrics.write_bytes(other.metrics.read_bytes())
    assert "line 1" in checked(run).message


def test_a_run_that_keeps_no_digests_fails_and_says_which_build_began_it(tmp_path: Path) -> None:
    run = over(tmp_path)
    left = {key: value for key, value in run.record.items() if key != "records"}
    (run.path / "run.json").write_text(record_text(left))
    actual = checked(run)
    assert not actual.passed
    assert f"{run.made_by} started the run" in actual.message
    assert "build" in run.made_by


def test_a_run_of_a_build_without_digests_is_reported(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    old = {"prunec": "0.1.0", "created": "2026-01-02T03:04:05", "digest": run.record["digest"]}
    (run.path / "run.json").write_text(json.dumps(old))
    actual, untold = check_records(run)
    assert not actual
    assert "prunec 0.1.0, 2026-01-02T03:04:05 started it" in untold[0]


def test_lines_can_be_added_by_another_process_after_a_kill(tmp_path: Path) -> None:
    """A torn last line is told, and goes when the training goes on."""
    path = tmp_path / "metrics.jsonl"
    history = [{"pass": "a", "epoch": 1}, {"pass": "a", "epoch": 2}]
    for metrics in history:
        MetricsLog(path, "me").append(metrics)
    assert all(line.fits for line in read_metrics(path, "me"))
    with path.open("a") as file:
        file.write('{"pass": "a", "ep')
    assert [line.fits for line in read_metrics(path, "me")] == [True, True, False]
    log = MetricsLog(path, "me")
    assert log.rewrite("a", history) == []
    log.append({"pass": "a", "epoch": 3})
    actual = list(read_metrics(path, "me"))
    assert [line.said for line in actual] == [*history, {"pass": "a", "epoch": 3}]
    assert all(line.fits for line in actual)
    assert last_digest(path, "me") == actual[-1].digest


def test_edited_lines_of_an_earlier_pass_are_named_and_left_out(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", "me")
    for name in ("a", "a", "b"):
        log.append({"pass": name, "loss": 0.5})
    text = log.path.read_text()
    log.path.write_text(text.replace("0.5", "0.1", 1))
    assert log.rewrite("b", [{"pass": "b", "loss": 0.25}]) == [1]
    assert [line.said for line in read_metrics(log.path, "me")] == [
        {"pass": "a", "loss": 0.5},
        {"pass": "b", "loss": 0.25},
    ]


def test_a_report_of_another_export_is_named(tmp_path: Path) -> None:
    run = exported_run(tmp_path)
    run.export.report.write_text(record_text({"passed": True}))
    assert "is not what this run wrote" in flaw_of(run, run.export.report)
