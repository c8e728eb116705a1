"""Cells on a Ray cluster: a task for each, which runs the command of that cell on a node.

Nodes share the comparison's folder, by the same path, and have prunec installed. A task that dies
with its worker or node is started again by Ray, wherever there is room; the cell goes on from its
last checkpoint, and waits where a process that outlived its worker still works on it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from prunec.comparison.elsewhere import Arguments
from prunec.comparison.grid import Cell
from prunec.comparison.watch import Watch
from prunec.errors import UsageError
from prunec.processes import ALONE
from prunec.training.interruption import listening

PROGRAM = (sys.executable, "-m", "prunec")
AGAIN = 3  # restarts of a task whose worker or node died
PAUSE = 0.5  # seconds between two looks at the tasks
LAST = 2000  # last characters kept of a failed command's output


class RayCluster:
    """Ray cluster that runs cells as tasks.

    Args:
        address: ``ray://HOST:PORT``, or ``auto`` for the one that this machine belongs to.
        asked: arguments of the comparison.
        gpus: GPUs per cell, or a fraction of one; None for one where the cluster has any.
    """

    def __init__(self, address: str, asked: Arguments, gpus: float | None) -> None:
        self.ray = _ray()
        self.asked = asked
        try:
            self.ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"--on {address}: no Ray cluster answers: {str(error).splitlines()[0]}",
                remedy="Start one with ray start --head, or name its address: --on ray://HOST:10001",
            ) from error
        # Of one node: a cell runs on a single one.
        most = max((node["Resources"].get("GPU", 0.0) for node in self._nodes()), default=0.0)
        # A cluster without GPUs runs cells on cores.
        self.gpus = min(1.0, most) if gpus is None else gpus
        if self.gpus > most:
            raise UsageError(
                f"--gpus {self.gpus:g}: no node of the cluster has more than {most:g}",
                remedy="Ask for fewer; 0 for none, 0.5 for two cells at once on a GPU.",
            )

    def described(self) -> str:
        """See :class:`prunec.comparison.compare.Cluster`."""
        count = len(self._nodes())
        gpus = f", {self.gpus:g} GPU each" if self.gpus else ""
        return f"a Ray cluster of {count} node{'s' * (count > 1)}{gpus}"

    def work_off(self, cells: Sequence[Cell], watch: Watch, ended: Callable[[], None]) -> None:
        """See :class:`prunec.comparison.compare.Cluster`."""
        asked = [cell.recipe.train.threads for cell in cells]
        cores = max((count for count in asked if isinstance(count, int)), default=1)
        task = self.ray.remote(num_gpus=self.gpus, num_cpus=cores, max_retries=AGAIN)(_run)
        tasks = {task.remote([*PROGRAM, *self.asked.command(c.name)]): c for c in cells}
        with listening(ALONE) as interruption:
            while tasks:
                over, _ = self.ray.wait(list(tasks), timeout=PAUSE)
                for one in over:
                    watch.over(tasks.pop(one), self._failure(one))
                    ended()
                if interruption.asked:
                    self._cancel(list(tasks))
                    raise interruption.error("with cells left")

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def _failure(self, task: Any) -> str:
        """Return the reason for which a cell failed; empty if it did not."""
        try:
            code, said = self.ray.get(task)
        except self.ray.exceptions.RayError as error:
            return str(error).strip().splitlines()[0]
        return "" if code == 0 else (said.strip().splitlines() or [f"exit code {code}"])[-1]

    def _cancel(self, tasks: Sequence[Any]) -> None:
        for task in tasks:
            self.ray.cancel(task)
        with suppress(self.ray.exceptions.RayError):
            # s: time to save a checkpoint
            self.ray.wait(list(tasks), num_returns=len(tasks), timeout=60)


def _run(command: list[str]) -> tuple[int, str]:
    """Run a command on a node; return its exit code and the end of its output.

    Cancelling the task stops the command.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    try:
        said, _ = process.communicate()
    except BaseException:  # cancelled: let the cell save where it stands
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise
    return process.returncode, said[-LAST:]


def _ray() -> Any:
    try:
        import ray  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise UsageError(
            "--on ray needs Ray", remedy="Install it: pip install 'prunec[ray]'"
        ) from error
    return ray
