"""Outcome of a run if nothing in it were compared with its digest.

The measure of harm: a command that refuses a damaged folder yields nothing that could be judged,
so the same command runs once more and believes whatever it reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from prunec.pipeline import opened
from prunec.store import artifacts, records
from prunec.store.runs import RunFolder
from prunec.tensor_files import read_tensors
from prunec.training import checkpoint


class _Any(str):
    """A digest that equals every other."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


@contextmanager
def believing() -> Iterator[None]:
    """Take every record, artifact, checkpoint and recipe at its word while the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "record_digest", lambda record: _Any("0" * 64))
        for room in (artifacts, checkpoint):
            patch.setattr(room, "read_tensors", lambda path, sha256="": read_tensors(path))
        patch.setattr(checkpoint, "read_record", _said)
        patch.setattr(artifacts, "_record", lambda folder, *_: _said(folder / "artifact.json"))
        patch.setattr(artifacts, "weights_digest", lambda module: _Any("0" * 64))
        patch.setattr(opened, "_made_by", lambda artifact, passes: True)
        patch.setattr(RunFolder, "_require_began_with", lambda run, recipe, text: None)
        patch.setattr(RunFolder, "_record", property(lambda run: _said(run.path / "run.json")))
        yield


def _said(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content
