"""Lookup of runs: all in a folder, the latest, the one at a path."""

from __future__ import annotations

import json
import os
from pathlib import Path

from prunec.errors import RunError
from prunec.store.environment import install_tagged, prunec_version
from prunec.store.runs import RunFolder


def runs_root(option: Path | None = None) -> Path:
    """Return the folder of the runs: ``option``, or PRUNEC_RUNS, or ``runs``."""
    return option or Path(os.environ.get("PRUNEC_RUNS") or "runs")


def open_run(path: Path) -> RunFolder:
    """Return the run in the folder ``path``.

    Raises:
        RunError: it is not a run, or another version of prunec wrote it.
    """
    if not (path / "run.json").is_file():
        raise RunError(
            f"{path} is not a run folder: it has no run.json", remedy=runs_there(path.parent)
        )
    run = RunFolder(path)
    # Before the record is checked: another version may compute digests differently.
    written, ours = _version_in(path / "run.json"), prunec_version()
    if written.split(".")[:2] != ours.split(".")[:2]:
        raise RunError(
            f"{path} was written by prunec {written}, this is prunec {ours}",
            remedy=f"Install that version (in a checkout: {install_tagged(written)}) "
            f"or train again: prunec train {path / 'recipe.toml'}",
        )
    run.record  # noqa: B018 — raises for a damaged record, before anything else does
    return run


def _version_in(path: Path) -> str:
    """Return the version that wrote a record, without checking a digest of another version."""
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        record = {}
    whole = isinstance(record, dict) and "prunec" in record
    return str(record["prunec"]) if whole else prunec_version()


def latest_run(root: Path, recipe_name: str | None = None) -> RunFolder:
    """Return the run that was created last, of all recipes or of one.

    Raises:
        RunError: there is none, or another version of prunec wrote it.
    """
    runs = [run for run in run_folders(root) if recipe_name in (None, run.recipe_name)]
    if not runs:
        of = f" of the recipe {recipe_name!r}" if recipe_name else ""
        raise RunError(
            f"there is no run{of} in {root}",
            remedy=f"Train one first: prunec train {recipe_name or 'gdp_mbv2'}",
        )
    # By sequence: two runs of one second have the same time.
    return open_run(max(runs, key=lambda run: (sequence(run), run.name)).path)


def launched_run(root: Path) -> RunFolder | None:
    """Return the latest run that this launch of torchrun created; None where there is none."""
    launch = os.environ.get("TORCHELASTIC_RUN_ID", "")
    runs = [run for run in run_folders(root) if run.record_or_empty.get("launch") == launch]
    return max(runs, key=sequence) if launch and runs else None


def run_folders(root: Path) -> list[RunFolder]:
    """Return the runs in ``root``, of any version, sorted by name."""
    return [RunFolder(path.parent) for path in sorted(root.glob("*/run.json"))]


def runs_there(root: Path) -> str:
    """Return a remedy: a sentence with the names of the runs in ``root``."""
    names = [run.name for run in run_folders(root)]
    return f"Runs in {root}: {', '.join(names)}." if names else "Train one: prunec train gdp_mbv2"


def sequence(run: RunFolder) -> int:
    """Return the sequence number of a run, by order of creation; 0 where unknown."""
    number = run.record_or_empty.get("sequence", 0)
    return number if isinstance(number, int) else 0
