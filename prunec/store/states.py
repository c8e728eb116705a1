"""States of runs, and the run that a command without RUN takes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from prunec.errors import RunError
from prunec.store.finding import latest_run, open_run, run_folders, sequence
from prunec.store.runs import RunFolder

State = Literal["new", "training", "interrupted", "failed", "trained", "exported", "damaged"]
"""Status of a run, except that a training whose process has ended is interrupted."""


def require_room(root: Path) -> None:
    """Check that a run can be created in a folder; create nothing.

    Raises:
        RunError: the folder, or its nearest parent that exists, is a file or cannot be written.
    """
    place = root.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return
    why = "it cannot be written" if place.is_dir() else f"{place} is a file"
    raise RunError(
        f"no run folder can be created in {root}: {why}",
        remedy="Name a folder that can be written: --runs DIR, or the variable PRUNEC_RUNS.",
    )


def is_at_work(run: RunFolder) -> bool:
    """Return whether a process is training, exporting or verifying a run; changes nothing."""
    place = run.path / ".lock"
    if not place.is_file():
        return False
    lock = FileLock(place, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:  # read-only: no process can work on it
        return False
    lock.release()
    return False


def state_of(run: RunFolder) -> State:
    """Return the state of a run; never raises, whatever its folder holds."""
    try:
        status = run.status
    except RunError:
        return "damaged"
    if status == "training":
        return "training" if is_at_work(run) else "interrupted"
    known: tuple[State, ...] = ("new", "interrupted", "failed", "trained", "exported")
    return next((state for state in known if state == status), "damaged")


def last_epoch(run: RunFolder) -> int:
    """Return the number of the last finished epoch in the run's metrics; 0 for none."""
    epoch = last_metrics(run).get("epoch")
    return epoch if isinstance(epoch, int) else 0


def last_metrics(run: RunFolder) -> dict[str, object]:
    """Return the last line of a run's metrics; empty where it is missing or damaged."""
    try:
        with run.metrics.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL))
            lines = file.read().decode("utf-8", "replace").splitlines()
        line = json.loads(lines[-1]) if lines else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return line if isinstance(line, dict) else {}


TAIL = 2**22
"""Bytes read from the end of a metrics file, 4 MiB: far more than any line, and quick to read."""


def described(run: RunFolder) -> str:
    """Return a run's name and state: ``gdp_mbv2-002 failed``."""
    state = state_of(run)
    words = {"failed": "failed", "interrupted": "was interrupted"}
    return f"{run.name} {words.get(state, f'is {state}')}"


def sound_run(root: Path, recipe_name: str | None, note: Callable[[str], None]) -> RunFolder:
    """Return the latest run, of all recipes or of one, that did not fail and is not training.

    Args:
        root: the folder of the runs.
        recipe_name: name of the recipe; None for any.
        note: callback for a sentence on newer runs that were skipped.

    Raises:
        RunError: there is none, or another version of prunec wrote it.
    """
    passing = ("failed", "training", "damaged")
    return _latest(root, recipe_name, lambda run: state_of(run) not in passing, note)


def resumable_run(root: Path, recipe_name: str | None, note: Callable[[str], None]) -> RunFolder:
    """Return the latest run that is not fully trained and that no process works on.

    If every run is fully trained, return the latest of all.

    Raises:
        RunError: as :func:`sound_run`.
    """
    open_states = ("new", "interrupted", "failed")
    try:
        return _latest(root, recipe_name, lambda run: state_of(run) in open_states, note)
    except NoneLeft:
        return latest_run(root, recipe_name)


class NoneLeft(RunError):
    """There are runs, but none in a state that the command can use."""


def _latest(
    root: Path,
    recipe_name: str | None,
    wanted: Callable[[RunFolder], bool],
    note: Callable[[str], None],
) -> RunFolder:
    newest = latest_run(root, recipe_name)
    runs = sorted(_of(root, recipe_name), key=lambda run: (sequence(run), run.name), reverse=True)
    passed: list[RunFolder] = []
    for run in runs:
        if wanted(run):
            if passed:
                note(f"Latest run: {run.path}. Skipped: {_listed(passed)}.")
            return open_run(run.path)
        passed.append(run)
    raise NoneLeft(f"no run in {root} is finished: {_listed(runs)}", remedy=how_to_go_on(newest))


def _of(root: Path, recipe_name: str | None) -> list[RunFolder]:
    return [run for run in run_folders(root) if recipe_name in (None, run.recipe_name)]


def _listed(runs: Sequence[RunFolder], most: int = 4) -> str:
    more = f" and {len(runs) - most} more" if len(runs) > most else ""
    return ", ".join(map(described, runs[:most])) + more


def how_to_go_on(run: RunFolder) -> str:
    """Return the remedy that finishes a run that is not fully trained."""
    state = state_of(run)
    if state == "training":
        return f"Wait for {run.path}, or name another run: prunec runs lists them."
    if state == "damaged":
        return "Take another copy of the run, or train again."
    if state == "failed":
        return (
            f"Remove the cause, then continue: prunec train --resume {run.path}; or start again: "
            f"prunec train {run.path / 'recipe.toml'}"
        )
    return f"Finish its training: prunec train --resume {run.path}"


def unfinished(run: RunFolder, what: str = "") -> RunError:
    """Return the error on a run that is not fully trained: how far it came, and why it ended.

    Args:
        run: the run.
        what: what is missing, if less than a whole training: ``finished pass``.
    """
    epoch, state = last_epoch(run), state_of(run)
    after = f" after epoch {epoch}" if epoch else " before its first epoch ended"
    how = {"failed": "it failed", "training": "it is training"}.get(state, "it was stopped")
    failure = str(run.record.get("failure", "")) if state == "failed" else ""
    why = f": {failure}" if failure else ""
    has = f"has no {what} yet" if what else "is not fully trained"
    return RunError(f"{run.path} {has}: {how}{after}{why}", remedy=how_to_go_on(run))
