"""Records: JSON that carries a digest of all it says, compared whenever it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunec.errors import DamagedRecord

DIGEST = "record_digest"
BEGAN = "began"
"""The key under which a record holds the digest of how its run began."""
_LATER = frozenset(("records", "steps", "status", "failure", DIGEST))
"""What a run's record is told after the run began."""
"""The key of a record that holds the digest of everything else in it."""


def record_digest(record: Mapping[str, Any]) -> str:
    """Return the sha256 of a record, its own digest left out: of sorted keys and their values."""
    said = {key: value for key, value in record.items() if key != DIGEST}
    text = json.dumps(json.loads(json.dumps(said)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def beginning_digest(record: Mapping[str, Any]) -> str:
    """Return the digest of what a run's record says of how the run began."""
    return record_digest({key: value for key, value in record.items() if key not in _LATER})


def record_text(record: Mapping[str, Any]) -> str:
    """Return a record as the text of its file, with its digest as the last key."""
    said = {key: value for key, value in record.items() if key != DIGEST}
    return json.dumps({**said, DIGEST: record_digest(said)}, indent=1) + "\n"


def parse_record(path: Path) -> dict[str, Any]:
    """Return what a record says; one without a digest, of an earlier build, is taken as it is.

    Raises:
        DamagedRecord: it cannot be read, is no JSON object, or was changed after it was written.
    """
    try:
        record = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise DamagedRecord(f"{path} is missing") from None
    except OSError as error:
        raise DamagedRecord(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise DamagedRecord(f"{path} is damaged: {str(error)[:200]}") from None
    if not isinstance(record, dict):
        raise DamagedRecord(f"{path} is damaged: it holds no object")
    if DIGEST in record and record[DIGEST] != record_digest(record):
        raise DamagedRecord(f"{path} was changed after it was written: its digest is another")
    return record


def read_record(path: Path) -> dict[str, Any]:
    """Return what a record says.

    Raises:
        DamagedRecord: as :func:`parse_record`, or it has no digest.
    """
    record = parse_record(path)
    if DIGEST not in record:
        raise DamagedRecord(
            f"{path} has no digest: it was changed after it was written, or an "
            "earlier build of prunec wrote it"
        )
    return record
