"""Comparison of a run's records with the digests of them in run.json."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prunec.errors import DamagedRecord
from prunec.store.metrics import last_digest, metrics_flaw
from prunec.store.records import BEGAN, DIGEST, beginning_digest, read_record
from prunec.store.runs import ENVIRONMENT, RunFolder


def keep_records(run: RunFolder, *paths: Path) -> None:
    """Store in run.json the digests of records just written; skip damaged or missing ones."""
    digests = {run.key(path): _digest(run, path) for path in paths}
    run.keep({name: digest for name, digest in digests.items() if digest})


def flaw_of(run: RunFolder, path: Path) -> str:
    """Return why a record is not the one that the run wrote; empty where it is."""
    kept = run.kept.get(run.key(path), "")
    if path.suffix == ".jsonl":
        return metrics_flaw(path, run.identity, kept or run.identity)
    if not kept:
        return f"{run.path / 'run.json'} keeps no digest of {run.key(path)}"
    try:
        digest = read_record(path)[DIGEST]
    except DamagedRecord as error:
        return error.message
    return "" if digest == kept else f"{path} is not what this run wrote: its digest does not fit"


def beginning_flaw(run: RunFolder) -> str:
    """Return why run.json was changed since the run was created; empty where it was not.

    environment.json, written with it, keeps its digest; an earlier build did not keep one.
    """
    try:
        began = read_record(run.path / ENVIRONMENT).get(BEGAN)
    except DamagedRecord:
        return ""  # reported as a flaw of its own
    # None: runs of builds that kept no digest of the beginning.
    if began in (None, beginning_digest(run.record)):
        return ""
    return f"{run.path / 'run.json'} was changed since the run was created"


def flaws_of(run: RunFolder, paths: Iterable[Path]) -> list[str]:
    """Return one sentence per record that is not as written."""
    return [text for path in paths if (text := flaw_of(run, path))]


def _digest(run: RunFolder, path: Path) -> str:
    """Return the digest that a record carries; empty where it is damaged or missing."""
    if path.suffix == ".jsonl":
        return last_digest(path, run.identity) if path.is_file() else ""
    try:
        return str(read_record(path)[DIGEST])
    except DamagedRecord:
        return ""
