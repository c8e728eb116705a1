"""Progress of a comparison: a live table on a terminal, lines of text elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from prunec.comparison.folder import ComparisonFolder
from prunec.comparison.grid import Cell
from prunec.comparison.job import Job
from prunec.store.runs import RunFolder
from prunec.tables import show
from prunec.wording import duration

TEXTS = 32  # characters that "epoch 123/300" and "12:34:56" take, with the gaps
EVERY = 1.0  # seconds between two reads of the metrics files


class Watch:
    """Display of running cells, of numbers of done, failed and waiting ones, and of the time left.

    Args:
        console: console to print on.
        cells: all cells of the comparison.
        left: unfinished cells.
        folder: folder of the comparison.
    """

    def __init__(
        self,
        console: Console,
        cells: Sequence[Cell],
        left: Sequence[Cell],
        folder: ComparisonFolder,
    ) -> None:
        self.console = console
        self.total, self.done, self.failed = len(cells), len(cells) - len(left), 0
        runs = folder.existing(left)
        self._epochs = {
            cell.name: _epochs_done(runs[cell.name]) if cell.name in runs else 0 for cell in left
        }
        self._wanted = sum(_epochs(cell) for cell in left)
        self._first = sum(self._epochs.values())
        self._began = self._looked = time.monotonic()
        self._live = Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> Watch:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def began(self, job: Job) -> None:
        """Report the start of a cell."""
        if not self.console.is_terminal:
            self.say(f"{self._count()} {job.cell.name}: started, {job.log}")

    def waits(self, job: Job) -> None:
        """Report that another process works on a cell."""
        self.say(f"{self._count()} {job.cell.name}: {job.held_elsewhere} works on it; waiting")

    def ended(self, job: Job) -> None:
        """Report the end of a cell."""
        took = duration(time.monotonic() - job.began)
        self.over(job.cell, job.failure.message if job.failure else "", f" in {took}")

    def over(self, cell: Cell, failure: str, took: str = "") -> None:
        """Report the end of a cell, or why it failed."""
        self._epochs[cell.name] = _epochs(cell)
        if failure:
            self.failed += 1
            self.say(f"{self._count()} {cell.name}: failed, {failure}", "red")
            return
        self.done += 1
        self.say(f"{self._count()} {cell.name}: done{took}{self._left()}")

    def look(self, jobs: Sequence[Job]) -> None:
        """Update the progress of running cells, at most once per second."""
        if time.monotonic() - self._looked < EVERY:
            return
        self._looked = time.monotonic()
        for job in jobs:
            self._epochs[job.cell.name] = _epochs_done(job.run)
        if self.console.is_terminal:
            self._live.update(self._picture(jobs), refresh=True)

    def say(self, text: str, style: str = "") -> None:
        """Print one line."""
        show(self.console, text, style)

    @property
    def seconds_left(self) -> float | None:
        """Seconds left at the pace of the epochs so far; None before the first epoch."""
        done = sum(self._epochs.values())
        if done <= self._first or done == self._wanted:
            return None
        pace = (time.monotonic() - self._began) / (done - self._first)
        return pace * (self._wanted - done)

    def _count(self) -> str:
        width = len(str(self.total))
        return f"[{self.done + self.failed:>{width}}/{self.total}]"

    def _left(self) -> str:
        seconds = self.seconds_left
        return "" if seconds is None else f", {duration(seconds)} left"

    def _room(self) -> int:
        """Return the width of bars beside the longest name and the texts of a cell."""
        names = max((len(name) for name in self._epochs), default=0)
        # 4 to 24 characters: shorter shows no progress, longer says no more.
        return max(4, min(24, self.console.width - names - TEXTS))

    def _picture(self, jobs: Sequence[Job]) -> Group:
        table = Table.grid(padding=(0, 2))
        for job in jobs:
            done, epochs = self._epochs[job.cell.name], _epochs(job.cell)
            bar = ProgressBar(total=epochs, completed=done, width=self._room())
            at = f"epoch {min(done + 1, epochs)}/{epochs}" if job.step == "train" else job.step
            table.add_row(Text(job.cell.name), bar, at, duration(time.monotonic() - job.began))
        waiting = self.total - self.done - self.failed - len(jobs)
        counts = f"{self.done} done, {self.failed} failed, {len(jobs)} running, {waiting} waiting"
        return Group(table, Text(counts + self._left(), style="dim"))


def _epochs(cell: Cell) -> int:
    return cell.recipe.train.epochs


def _epochs_done(run: RunFolder) -> int:
    """Return the last epoch in the metrics file; 0 for a missing or incomplete line."""
    try:
        lines = run.metrics.read_text("utf-8").splitlines()
        return int(json.loads(lines[-1])["epoch"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return 0
