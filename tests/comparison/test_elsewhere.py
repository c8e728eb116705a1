"""Cells that run on any machine: by their commands, one at a time each, and on a Ray cluster."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from compared import compare, results_of
from comparison_recipes import write_recipe

from prunec.comparison.claims import Claim
from prunec.comparison.folder import ComparisonFolder
from prunec.comparison.grid import expand
from prunec.comparison.pool import _Pool
from prunec.errors import UsageError

HERE = Path(__file__).parent


@pytest.fixture
def stub_cells(stub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunec.comparison.elsewhere.require_ready", lambda cells: None)


def calls_of(folder: Path, name: str) -> list[str]:
    (run,) = (folder / "runs").glob(f"{name}-*")
    return (run / "calls.txt").read_text().split()


def test_listed_commands_make_the_comparison(tmp_path: Path, stub_cells: None) -> None:
    """Each from another folder; done ones are listed no more, and the whole command takes them."""
    recipes = [write_recipe(tmp_path, "gmp")]
    options = [*recipes, "--seeds", "2", "--sparsity", "0.5", "--set", "train.epochs=1"]
    folder = tmp_path / "out"
    lines = compare(*options, "-o", folder, "--list").splitlines()
    assert len(lines) == 2
    assert not folder.exists()
    for line in lines[:1]:
        program, command, *words = shlex.split(line)
        assert (program, command) == ("prunec", "compare")
        assert "done in" in compare(*words)
    left = json.loads(compare(*options, "-o", folder, "--list", "--json"))
    assert [shlex.join(words) for words in left] == lines[1:]
    assert "1 done, 1 left" in compare(*options, "-o", folder)
    assert all(result.proven for result in results_of(folder, expand(recipes, seeds=2,
               sparsities=[0.5], changes=["train.epochs=1"])))  # fmt: skip
    assert calls_of(folder, "gmp-s0.5-seed0") == ["train", "export", "verify"]


def test_a_cell_that_is_not_there_is_refused(tmp_path: Path, stub_cells: None) -> None:
    text = compare(write_recipe(tmp_path, "gmp"), "-o", tmp_path / "out", "--cell", "x", code=3)
    assert "Cells: gmp-s0.5-seed0" in text


class Watch:
    """Takes what is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def began(self, job: Any) -> None: ...

    def look(self, jobs: Any) -> None: ...

    def ended(self, job: Any) -> None:
        self.said.append(f"{job.cell.name} ended")

    def waits(self, job: Any) -> None:
        self.said.append(f"{job.held_elsewhere} works on {job.cell.name}")


def test_a_cell_that_another_machine_holds_is_reported_and_waited_for(
    tmp_path: Path, stub_cells: None
) -> None:
    """Its holder is named once; when it lets go, the cell runs to its end here."""
    (cell,) = expand([write_recipe(tmp_path, "gmp", epochs="1")]).cells
    folder, watch = ComparisonFolder(tmp_path / "out"), Watch()
    theirs = Claim(folder.path, cell.name)
    assert theirs.take()
    interruption: Any = type("Nothing", (), {"asked": 0})()
    pool = _Pool([cell], folder, ({},), watch, lambda job: None, interruption)  # type: ignore[arg-type]
    pool._begin()
    (job,) = pool.jobs
    for _ in range(2):
        assert not job.advance()
        pool._report_others(job)
    assert watch.said == [f"{theirs.holder} works on {cell.name}"]
    assert f"process {os.getpid()}" in theirs.holder
    theirs.release()
    pool.run()
    assert watch.said[1:] == [f"{cell.name} ended"]
    assert Claim(folder.path, cell.name).take()  # it is free again


@pytest.mark.parametrize("on", ["slurm", "http://x"])
def test_other_clusters_are_refused(on: str, tmp_path: Path, stub_cells: None) -> None:
    recipe = write_recipe(tmp_path, "gmp")
    assert "--on ray" in compare(recipe, "-o", tmp_path / "out", "--on", on, code=3)
    assert "--gpus needs --on ray" in compare(recipe, "--gpus", "0.5", code=3)


def wait_for(holds: Callable[[], Any], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)
    return value


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster of two nodes on this machine, one core each."""
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'prunec[ray]'")
    from ray.cluster_utils import Cluster

    from prunec.comparison import on_ray

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setattr(on_ray, "PROGRAM", (sys.executable, str(HERE / "stubbed_prunec.py")))
    monkeypatch.setattr(on_ray, "PAUSE", 0.05)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    yield made
    ray.shutdown()  # type: ignore[no-untyped-call,unused-ignore]
    made.shutdown()


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")  # Ray's own
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_ray_cluster_of_two_nodes_survives_a_killed_worker(
    tmp_path: Path, stub_cells: None, cluster: Any
) -> None:
    """The worker dies in the middle of a training; Ray starts the task again, all cells end."""
    import threading

    from prunec.comparison.elsewhere import Arguments
    from prunec.comparison.on_ray import RayCluster

    recipes = [write_recipe(tmp_path, name, epochs="60") for name in ("gmp", "rigl")]
    folder = tmp_path / "out"
    asked = Arguments(tuple(recipes), "", 1, (), folder)
    with pytest.raises(UsageError, match="no node of the cluster has more than 0"):
        RayCluster("auto", asked, 1.0)
    killed: list[int] = []

    def kill() -> None:
        """End the Ray worker above the command that claims the first cell."""
        holder = folder / "claims" / "gmp-s0.5-seed0.holder"
        text = wait_for(lambda: holder.is_file() and holder.read_text())
        command = int(text.split()[-1])
        wait_for(lambda: list((folder / "runs").glob("gmp-*/metrics.jsonl")))
        status = Path(f"/proc/{command}/status").read_text()
        worker = int(status.partition("PPid:")[2].split()[0])
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
            killed.append(worker)

    killer = threading.Thread(target=kill)
    killer.start()
    text = compare(*recipes, "--seeds", "1", "-o", folder, "--on", "ray")
    killer.join()
    assert killed
    assert "a Ray cluster of 2 nodes" in text
    assert text.count(": done") == 2
    assert all(result.proven for result in results_of(folder, expand(recipes)))
    for name in ("gmp-s0.5-seed0", "rigl-s0.5-seed0"):
        assert calls_of(folder, name)[-2:] == ["export", "verify"]
