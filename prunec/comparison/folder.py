"""The folder of a comparison: the runs of its cells, and what was made of them.

comparisons/<name>/
├── comparison.json    what was asked, by which versions, on which machine
├── runs/              a run folder a cell, with its log.txt and, where it failed, failure.json
├── claims/            a lock for each cell that is worked on, on whichever machine
├── results.csv        a line a cell
├── table.csv, .md     a line a recipe and sparsity: means and deviations over seeds
├── plot.svg           accuracy against sparsity and against MACs
└── report.html        all of this as one page

A cell's run is recognised by the digest of its recipe: a recipe that changed begins a new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from prunec.comparison.equal_terms import equal_terms
from prunec.comparison.grid import Cell, Grid
from prunec.errors import DamagedRecord, PrunecError, RunError
from prunec.files import require_writable, write_text_atomic
from prunec.store.environment import environment, prunec_version
from prunec.store.finding import open_run, run_folders
from prunec.store.new_runs import create_run
from prunec.store.records import DIGEST, parse_record, record_text
from prunec.store.runs import RunFolder

LONGEST = 60  # characters of a name made of recipes' names


@dataclass(frozen=True)
class Failure:
    """Why a cell's run ended early.

    Attributes:
        step: train, export or verify.
        code: the exit code of its process; negative for a signal.
        message: what was found.
        remedy: what mends it; may be empty.
    """

    step: str
    code: int
    message: str
    remedy: str = ""


@dataclass(frozen=True)
class ComparisonFolder:
    """A comparison on disk; nothing is kept in memory."""

    path: Path

    @property
    def runs(self) -> Path:
        """The folder of the cells' runs."""
        return self.path / "runs"

    @property
    def record(self) -> dict[str, Any]:
        """What comparison.json says; empty where it cannot be read."""
        try:
            return parse_record(self.path / "comparison.json")
        except DamagedRecord:
            return {}

    def write_record(self, grid: Grid, command: Sequence[str]) -> None:
        """Write down what is compared."""
        record = {
            "prunec": prunec_version(),
            "command": list(command),
            "terms": equal_terms(grid.cells[0].recipe),
            "notes": list(grid.notes),
            "cells": {cell.name: cell.digest for cell in grid.cells},
            "environment": environment(),
        }
        write_text_atomic(self.path / "comparison.json", record_text(record))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from working on this comparison while the block runs.

        Raises:
            RunError: one does, or the folder cannot be written.
        """
        require_writable(self.path / "comparison.json")
        lock = FileLock(self.path / ".lock", blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(
                f"another process is working on {self.path}",
                remedy="Wait for it or stop it, or name another folder: -o FOLDER",
            ) from None
        with lock:
            yield

    def found(self, cells: Sequence[Cell]) -> dict[str, RunFolder]:
        """Return the runs that are there, by the name of their cell."""
        runs = {_digest_of(run): run for run in run_folders(self.runs)}
        wanted = {cell.name: runs.get(cell.digest) for cell in cells}
        return {name: run for name, run in wanted.items() if run}

    def outdated(self, cells: Sequence[Cell]) -> list[RunFolder]:
        """Return the runs that were made from an earlier form of a cell's recipe."""
        digests = {cell.name: cell.digest for cell in cells}
        return [
            run
            for run in run_folders(self.runs)
            if run.recipe_name in digests and _digest_of(run) != digests[run.recipe_name]
        ]

    def begun(self, cell: Cell) -> RunFolder:
        """Return the run of a cell; a new one where there is none.

        Raises:
            RunError: the folder cannot be made.
        """
        found = self.found([cell]).get(cell.name)
        return found or create_run(cell.recipe, self.runs, cell.command)


def default_folder(grid: Grid) -> Path:
    """Return ``comparisons/<the recipes' names>``, the same for the same recipes."""
    name = "-".join(grid.methods)
    if len(name) > LONGEST:
        name = f"{name[: LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return Path("comparisons") / name


def steps_left(run: RunFolder) -> tuple[str, ...]:
    """Return what is still to do for a run: the last of train, export, verify."""
    if run.status not in ("trained", "exported"):
        return ("train", "export", "verify")
    if run.status != "exported" or not _passed(run.export.report):
        return ("export", "verify")
    return () if _passed(run.export.verified) else ("verify",)


def is_busy(run: RunFolder) -> bool:
    """Say whether a process is training, exporting or verifying this run."""
    try:
        with run.held():
            return False
    except RunError:
        return True


def failure_of(run: RunFolder) -> Failure | None:
    """Return why the last attempt at a run failed; None where it did not."""
    try:
        said = parse_record(run.path / "failure.json")
        return Failure(**{key: value for key, value in said.items() if key != DIGEST})
    except (DamagedRecord, TypeError):
        return None


def keep_failure(run: RunFolder, failure: Failure | None) -> None:
    """Write down why a run failed, or that it did not."""
    path = run.path / "failure.json"
    if failure is None:
        path.unlink(missing_ok=True)
    else:
        write_text_atomic(path, record_text(asdict(failure)))


def _digest_of(run: RunFolder) -> str:
    """The digest of a run's recipe; empty where another version wrote it, or it is damaged."""
    try:
        return str(open_run(run.path).record.get("digest", ""))
    except PrunecError:
        return ""


def _passed(path: Path) -> bool:
    try:
        return parse_record(path).get("passed") is True
    except DamagedRecord:
        return False
