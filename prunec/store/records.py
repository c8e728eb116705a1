"""Records: JSON files that carry a digest of their own contents, checked whenever they are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunec.errors import DamagedRecord

DIGEST = "record_digest"
"""Key of the digest of everything else in a record."""
BEGAN = "began"
"""Key, in environment.json, of the digest of run.json as it was when the run was created."""
_LATER = frozenset(("records", "steps", "status", "failure", DIGEST))
"""Keys of run.json that change after the run was created."""


def record_digest(record: Mapping[str, Any]) -> str:
    """Return the sha256 of a record without its own digest, as JSON with sorted keys."""
    said = {key: value for key, value in record.items() if key != DIGEST}
    text = json.dumps(json.loads(json.dumps(said)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def beginning_digest(record: Mapping[str, Any]) -> str:
    """Return the digest of the keys of run.json that never change."""
    return record_digest({key: value for key, value in record.items() if key not in _LATER})


def record_text(record: Mapping[str, Any]) -> str:
    """Return a record as JSON text, with its digest as the last key."""
    said = {key: value for key, value in record.items() if key != DIGEST}
    return json.dumps({**said, DIGEST: record_digest(said)}, indent=1) + "\n"


def parse_record(path: Path) -> dict[str, Any]:
    """Read a record; one without a digest, of an earlier build, is accepted unchecked.

    Raises:
        DamagedRecord: it cannot be read, is not a JSON object, or was changed.
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
        raise DamagedRecord(f"{path} is damaged: it is not a JSON object")
    if DIGEST in record and record[DIGEST] != record_digest(record):
        raise DamagedRecord(f"{path} was changed after it was written: its digest does not fit")
    return record


def read_record(path: Path) -> dict[str, Any]:
    """Read a record that must have a digest.

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
