"""The folder of what ships: the one place that knows the names of its files.

export/
├── report.json            what was found of every form at export
├── verified.json          what ``prunec verify`` found after it
├── manifest.json          what was recorded of every form that shipped
└── <form>/                onnx, …
    ├── model<suffix>      the file that ships
    ├── dense/             the file of the network before anything was cut
    └── rejected/          a file that failed a check
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunec.errors import DamagedRecord
from prunec.store.records import parse_record, read_record

STEM = "model"


@dataclass(frozen=True)
class ExportFolder:
    """The folder of what ships.

    Attributes:
        path: the folder; it may not be there yet.
    """

    path: Path

    @property
    def report(self) -> Path:
        """The file of what was found at export, form by form."""
        return self.path / "report.json"

    @property
    def verified(self) -> Path:
        """The file of what ``prunec verify`` found after the export."""
        return self.path / "verified.json"

    @property
    def manifest(self) -> Path:
        """The file that records what shipped: digests, sizes, costs, form by form."""
        return self.path / "manifest.json"

    def shipped(self, form: str, suffix: str) -> Path:
        """Return the file of a form that ships."""
        return self.path / form / f"{STEM}{suffix}"

    def dense(self, form: str, suffix: str) -> Path:
        """Return the file of the network before anything was cut."""
        return self.path / form / "dense" / f"{STEM}{suffix}"

    def candidate(self, form: str, suffix: str) -> Path:
        """Return the file that is checked before it ships, and stays there where it fails."""
        return self.path / form / "rejected" / f"{STEM}{suffix}"

    @property
    def recorded(self) -> dict[str, dict[str, Any]]:
        """What the manifest says of every form that shipped; empty where it is damaged."""
        try:
            found = parse_record(self.manifest)
        except DamagedRecord:
            return {}
        return {form: entry for form, entry in found.items() if isinstance(entry, dict)}

    @property
    def said(self) -> dict[str, dict[str, Any]]:
        """What the manifest says of every form, whether or not it is as it was written.

        Raises:
            DamagedRecord: it cannot be read at all.
        """
        try:
            found = json.loads(self.manifest.read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            found = parse_record(self.manifest)
        found = found if isinstance(found, dict) else {}
        return {form: entry for form, entry in found.items() if isinstance(entry, dict)}

    @property
    def flaw(self) -> str:
        """Why the manifest cannot be believed; empty where it can."""
        try:
            read_record(self.manifest)
        except DamagedRecord as error:
            return error.message
        return ""

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms that shipped: those of the manifest, and those whose folder holds a file."""
        recorded = self.recorded
        there = {path.parent.name for path in self.path.glob(f"*/{STEM}.*")}
        return (*recorded, *sorted(there - recorded.keys()))
