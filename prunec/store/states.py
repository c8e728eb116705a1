"""In what state runs are, and which of them a command means that names none."""

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
"""As a run's status has it; but a training whose process is gone is interrupted."""


def require_room(root: Path) -> None:
    """Refuse a folder of runs in which no run could be made; makes nothing.

    Raises:
        RunError: it cannot be made or written, as far as that can be seen.
    """
    place = root.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return
    why = "it cannot be written" if place.is_dir() else f"{place} is a file"
    raise RunError(
        f"no run folder can be made in {root}: {why}",
        remedy="Name a folder that can be written: --runs DIR, or the variable PRUNEC_RUNS.",
    )


def is_at_work(run: RunFolder) -> bool:
    """Say whether a process is training, exporting or verifying a run; changes nothing."""
    place = run.path / ".lock"
    if not place.is_file():
        return False
    lock = FileLock(place, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:  # it can only be read: nobody works on it
        return False
    lock.release()
    return False


def state_of(run: RunFolder) -> State:
    """Return the state of a run; never raises for what is in its folder."""
    try:
        status = run.status
    except RunError:
        return "damaged"
    if status == "training":
        return "training" if is_at_work(run) else "interrupted"
    known: tuple[State, ...] = ("new", "interrupted", "failed", "trained", "exported")
    return next((state for state in known if state == status), "damaged")


def last_epoch(run: RunFolder) -> int:
    """Return the number of the last finished epoch that the run's metrics have; 0 for none."""
    found = last_metrics(run).get("epoch")
    return found if isinstance(found, int) else 0


def last_metrics(run: RunFolder) -> dict[str, object]:
    """Return the last line of a run's metrics; empty where there is none that can be read."""
    try:
        with run.metrics.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL))
            lines = file.read().decode("utf-8", "replace").splitlines()
        found = json.loads(lines[-1]) if lines else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


TAIL = 2**22
"""Bytes at the end of a file of metrics in which its last line is looked for."""


def described(run: RunFolder) -> str:
    """Return a run's name and state: ``gdp_mbv2-002 failed``."""
    state = state_of(run)
    words = {"failed": "failed", "interrupted": "was interrupted"}
    return f"{run.name} {words.get(state, f'is {state}')}"


def sound_run(root: Path, recipe_name: str | None, tell: Callable[[str], None]) -> RunFolder:
    """Return the latest run, of all recipes or of one, that neither failed nor still trains.

    Args:
        root: the folder of the runs.
        recipe_name: whose run; None for any.
        tell: is told which newer ones were passed over, in a sentence.

    Raises:
        RunError: there is none, or another version of prunec wrote it.
    """
    passing = ("failed", "training", "damaged")
    return _latest(root, recipe_name, lambda run: state_of(run) not in passing, tell)


def resumable_run(root: Path, recipe_name: str | None, tell: Callable[[str], None]) -> RunFolder:
    """Return the latest run that is not trained to its end and that nobody works on.

    Where every one is trained to its end, the latest of all.

    Raises:
        RunError: as :func:`sound_run`.
    """
    open_states = ("new", "interrupted", "failed")
    try:
        return _latest(root, recipe_name, lambda run: state_of(run) in open_states, tell)
    except NoneLeft:
        return latest_run(root, recipe_name)


class NoneLeft(RunError):
    """There are runs, but none that a command could mean."""


def _latest(
    root: Path,
    recipe_name: str | None,
    wanted: Callable[[RunFolder], bool],
    tell: Callable[[str], None],
) -> RunFolder:
    newest = latest_run(root, recipe_name)
    runs = sorted(_of(root, recipe_name), key=lambda run: (sequence(run), run.name), reverse=True)
    passed: list[RunFolder] = []
    for run in runs:
        if wanted(run):
            if passed:
                tell(f"Latest run: {run.path}. Passed over: {_listed(passed)}.")
            return open_run(run.path)
        passed.append(run)
    raise NoneLeft(f"no run in {root} is finished: {_listed(runs)}", remedy=how_to_go_on(newest))


def _of(root: Path, recipe_name: str | None) -> list[RunFolder]:
    return [run for run in run_folders(root) if recipe_name in (None, run.recipe_name)]


def _listed(runs: Sequence[RunFolder], most: int = 4) -> str:
    more = f" and {len(runs) - most} more" if len(runs) > most else ""
    return ", ".join(map(described, runs[:most])) + more


def how_to_go_on(run: RunFolder) -> str:
    """Return what brings a run that is not trained to its end there."""
    state = state_of(run)
    if state == "training":
        return f"Wait for {run.path}, or name another run: prunec runs lists them."
    if state == "damaged":
        return "Take another copy of the run, or train again."
    if state == "failed":
        return (
            f"Mend what made it fail, then go on: prunec train --resume {run.path}; or begin anew: "
            f"prunec train {run.path / 'recipe.toml'}"
        )
    return f"Train it to its end: prunec train --resume {run.path}"


def unfinished(run: RunFolder, what: str = "") -> RunError:
    """Return the error that says that a run is not trained to its end, how far it came, and why.

    Args:
        run: the run.
        what: what it has not yet, where that is less than a whole training: "a finished pass".
    """
    epoch, state = last_epoch(run), state_of(run)
    after = f" after epoch {epoch}" if epoch else " before its first epoch ended"
    how = {"failed": "it failed", "training": "it is at work"}.get(state, "it was stopped")
    failure = str(run.record.get("failure", "")) if state == "failed" else ""
    why = f": {failure}" if failure else ""
    has = f"has no {what} yet" if what else "is not trained to its end"
    return RunError(f"{run.path} {has}: {how}{after}{why}", remedy=how_to_go_on(run))
