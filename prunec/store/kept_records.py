"""The records of a run, compared with the digests of them that run.json keeps."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prunec.errors import DamagedRecord
from prunec.store.metrics import last_digest, metrics_flaw
from prunec.store.records import BEGAN, DIGEST, beginning_digest, read_record
from prunec.store.runs import ENVIRONMENT, RunFolder


def keep_records(run: RunFolder, *paths: Path) -> None:
    """Write down the digests of records that were written just now, of those that are whole."""
    digests = {run.key(path): _digest(run, path) for path in paths}
    run.keep({name: digest for name, digest in digests.items() if digest})


def flaw_of(run: RunFolder, path: Path) -> str:
    """Return why a record is not what the run wrote there; empty where it is."""
    kept = run.kept.get(run.key(path), "")
    if path.suffix == ".jsonl":
        return metrics_flaw(path, run.identity, kept or run.identity)
    if not kept:
        return f"{run.path / 'run.json'} keeps no digest of {run.key(path)}"
    try:
        found = read_record(path)[DIGEST]
    except DamagedRecord as error:
        return error.message
    return "" if found == kept else f"{path} is not what this run wrote: its digest is another"


def beginning_flaw(run: RunFolder) -> str:
    """Return why run.json does not say how the run began; empty where it does.

    The environment was written beside it; that of an earlier build does not tell.
    """
    try:
        began = read_record(run.path / ENVIRONMENT).get(BEGAN)
    except DamagedRecord:
        return ""  # told as a flaw of its own
    if began in (None, beginning_digest(run.record)):
        return ""
    return f"{run.path / 'run.json'} is not what it was when the run began: it was changed"


def flaws_of(run: RunFolder, paths: Iterable[Path]) -> list[str]:
    """Return what is wrong with records, a sentence each."""
    return [text for path in paths if (text := flaw_of(run, path))]


def _digest(run: RunFolder, path: Path) -> str:
    """The digest that a record carries; empty where it is damaged or missing."""
    if path.suffix == ".jsonl":
        return last_digest(path, run.identity) if path.is_file() else ""
    try:
        return str(read_record(path)[DIGEST])
    except DamagedRecord:
        return ""
