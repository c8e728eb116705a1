"""Folder of a comparison: the runs of its cells, and the results.

comparisons/<name>/
├── comparison.json    command line, cells, versions, machine
├── runs/              one run folder per cell, with log.txt and, if it failed, failure.json
├── claims/           a lock for each cell that some machine works on
├── results.csv        one line per cell
├── table.csv, .md     one line per recipe and sparsity: means and deviations over seeds
├── plot.svg           accuracy against sparsity and against costs
└── report.html        everything above as one page

The run of a cell is identified by the digest of its recipe: a changed recipe starts a new run.
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

LONGEST = 60  # characters of a folder's name made of recipes' names; longer ones get a digest


@dataclass(frozen=True)
class Failure:
    """Failure of a cell's run.

    Attributes:
        step: ``train``, ``export`` or ``verify``.
        code: exit code of its process; negative for a signal.
        message: message of the error.
        remedy: its remedy; may be empty.
    """

    step: str
    code: int
    message: str
    remedy: str = ""


@dataclass(frozen=True)
class ComparisonFolder:
    """A comparison on disk; every property reads its file anew."""

    path: Path

    @property
    def runs(self) -> Path:
        """Folder of the cells' runs."""
        return self.path / "runs"

    @property
    def record(self) -> dict[str, Any]:
        """Contents of comparison.json; empty where it cannot be read."""
        try:
            return parse_record(self.path / "comparison.json")
        except DamagedRecord:
            return {}

    def write_record(self, grid: Grid, command: Sequence[str]) -> None:
        """Write comparison.json: command line, terms, cells and environment."""
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
            RunError: another process works on it, or the folder cannot be written.
        """
        require_writable(self.path / "comparison.json")
        lock = FileLock(self.path / ".lock", blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(
                f"another process is working on {self.path}",
                remedy="Wait for it or stop it, or name another folder: -o FOLDER.",
            ) from None
        with lock:
            yield

    def existing(self, cells: Sequence[Cell]) -> dict[str, RunFolder]:
        """Return the existing runs of cells, name of the cell → run."""
        runs = {_digest_of(run): run for run in run_folders(self.runs)}
        wanted = {cell.name: runs.get(cell.digest) for cell in cells}
        return {name: run for name, run in wanted.items() if run}

    def outdated(self, cells: Sequence[Cell]) -> list[RunFolder]:
        """Return the runs of earlier versions of the cells' recipes."""
        digests = {cell.name: cell.digest for cell in cells}
        return [
            run
            for run in run_folders(self.runs)
            if run.recipe_name in digests and _digest_of(run) != digests[run.recipe_name]
        ]

    def run_of(self, cell: Cell) -> RunFolder:
        """Return the run of a cell; create it if there is none.

        Raises:
            RunError: its folder cannot be created.
        """
        run = self.existing([cell]).get(cell.name)
        return run or create_run(cell.recipe, self.runs, cell.command)


def default_folder(grid: Grid) -> Path:
    """Return ``comparisons/<names of the recipes>``, the same for the same recipes."""
    name = "-".join(grid.methods)
    if len(name) > LONGEST:
        # 9: a hyphen and eight digits
        name = f"{name[: LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return Path("comparisons") / name


def steps_left(run: RunFolder) -> tuple[str, ...]:
    """Return the remaining steps of a run: the last ones of train, export, verify."""
    # By the records, not by the exit codes: a process may be killed after its work.
    if run.status not in ("trained", "exported"):
        return ("train", "export", "verify")
    if run.status != "exported" or not _passed(run.export.report):
        return ("export", "verify")
    return () if _passed(run.export.verified) else ("verify",)


def is_busy(run: RunFolder) -> bool:
    """Return whether a process is training, exporting or verifying this run."""
    try:
        with run.held():
            return False
    except RunError:
        return True


def failure_of(run: RunFolder) -> Failure | None:
    """Return the failure of the last attempt at a run; None where it did not fail."""
    try:
        said = parse_record(run.path / "failure.json")
        return Failure(**{key: value for key, value in said.items() if key != DIGEST})
    except (DamagedRecord, TypeError):
        return None


def keep_failure(run: RunFolder, failure: Failure | None) -> None:
    """Write failure.json, or remove it for None."""
    path = run.path / "failure.json"
    if failure is None:
        path.unlink(missing_ok=True)
    else:
        write_text_atomic(path, record_text(asdict(failure)))


def _digest_of(run: RunFolder) -> str:
    """Return the digest of a run's recipe; empty if it is damaged or of another version."""
    try:
        return str(open_run(run.path).record.get("digest", ""))
    except PrunecError:
        return ""


def _passed(path: Path) -> bool:
    try:
        return parse_record(path).get("passed") is True
    except DamagedRecord:
        return False
