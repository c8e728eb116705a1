"""`prunec compare`: stopped, killed or started twice, the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compared import compare, results_of
from comparison_recipes import write_recipe
from comparison_stub import DENSE
from forked import Forked
from test_end_to_end import write_images

from prunec.cli.commands import main
from prunec.comparison import job
from prunec.comparison.folder import ComparisonFolder
from prunec.comparison.grid import expand

TESTS = Path(__file__).parent.parent
EPOCHS = 40  # of a training that is stopped twice: it must not end before


@pytest.mark.slow
def test_a_run_that_somebody_else_trains_is_waited_for(tmp_path: Path, stub: None) -> None:
    """A child that outlived its comparison goes on; its run is taken over when it has ended."""
    (cell,) = expand([write_recipe(tmp_path, "gmp")]).cells
    folder = ComparisonFolder(tmp_path / "out")
    run = folder.run_of(cell)
    waiting = job.Job(cell, run, 0, {})
    with run.held():
        assert not waiting.advance()
        assert waiting.step == "wait"
    wait_for(waiting.advance)
    assert waiting.failure is None
    assert folder.run_of(cell) == run


def started(options: list[str], folder: Path) -> Forked:
    """The command as a process of its own."""

    def command() -> None:
        sys.argv = ["prunec", "compare", *options]
        main()

    return Forked(command, folder)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(holds: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_stopped_and_a_killed_comparison_go_on(tmp_path: Path, stub: None) -> None:
    """Stopped, it saves; killed with its child, the same command ends what they began."""
    run = stopped_killed_and_ended(tmp_path)
    calls = (run / "calls.txt").read_text().split()
    assert calls == ["train", "train", "train", "export", "verify"]


@pytest.mark.nightly
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_comparison_that_trains_and_ships_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.getenv("PYTHONPATH", "")]))
    run = stopped_killed_and_ended(tmp_path)
    assert (run / "log.txt").read_text().count("Continuing after") == 2


def stopped_killed_and_ended(tmp_path: Path) -> Path:
    """The folder of the one run of a comparison that is stopped once and killed once."""
    write_images(tmp_path / "images")
    recipe = write_recipe(tmp_path, "gmp", epochs=str(EPOCHS))
    folder, run = tmp_path / "out", tmp_path / "out" / "runs" / "gmp-s0.5-seed0-001"
    options = [recipe, "--seeds", "1", "-o", str(folder)]

    process = started(options, tmp_path)
    wait_for(lambda: len(lines_of(run)) >= 2)
    (child,) = children_of(process.pid)
    os.kill(process.pid, signal.SIGTERM)
    told = process.ended()
    assert told.returncode == 128 + signal.SIGTERM
    assert "Repeat the same command to continue." in told.stdout + told.stderr
    assert not alive(child)
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    assert (folder / "report.html").is_file()

    begun = len(lines_of(run))
    process = started(options, tmp_path)
    wait_for(lambda: len(lines_of(run)) > begun)
    (child,) = children_of(process.pid)
    for victim in (process.pid, child):
        os.kill(victim, signal.SIGKILL)
    assert process.ended().returncode == -signal.SIGKILL
    assert len(lines_of(run)) < EPOCHS

    assert "[1/1]" in compare(*options)
    (result,) = results_of(folder, expand([recipe]))
    assert result.proven
    assert [line["epoch"] for line in lines_of(run)] == list(range(1, EPOCHS + 1))
    report = json.loads((run / "export" / "report.json").read_text())["forms"]["onnx"]
    assert result.accuracy == report["details"]["accuracy"]
    assert result.macs == report["details"].get("macs", DENSE)
    assert result.sparsity == pytest.approx(0.5, abs=0.01)
    assert [path.name for path in (folder / "runs").iterdir()] == [run.name]
    return run


def lines_of(run: Path) -> list[Any]:
    path = run / "metrics.jsonl"
    collected = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            collected.append(json.loads(line))
        except ValueError:
            continue
    return collected


def children_of(parent: int) -> list[int]:
    listed = subprocess.run(
        ["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in listed.stdout.split()]
