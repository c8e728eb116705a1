"""Folder of the exported files; no other module knows the names in it.

export/
├── report.json            report of the export, form by form
├── verified.json          report of a later ``prunec verify``
├── layers.json            times of the layers, of ``prunec bench --runner native --layers``
├── manifest.json          digests, sizes and costs of every published form
└── <form>/                onnx, …
    ├── model<suffix>      the published file
    ├── dense/             the file of the dense network; none if nothing was cut
    └── rejected/          a file that failed a check
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunec.errors import DamagedRecord, RunError
from prunec.files import sha256_of
from prunec.store.records import parse_record, read_record

STEM = "model"


@dataclass(frozen=True)
class ExportFolder:
    """The export folder of a run.

    Attributes:
        path: the folder; it may not exist yet.
    """

    path: Path

    @property
    def report(self) -> Path:
        """Path of the report of the export."""
        return self.path / "report.json"

    @property
    def verified(self) -> Path:
        """Path of the report of a later ``prunec verify``."""
        return self.path / "verified.json"

    @property
    def layers(self) -> Path:
        """Path of the times of the layers of native code."""
        return self.path / "layers.json"

    @property
    def manifest(self) -> Path:
        """Path of the manifest: digests, sizes and costs of every published form."""
        return self.path / "manifest.json"

    def shipped(self, form: str, suffix: str) -> Path:
        """Return the path of a form's published file."""
        return self.path / form / f"{STEM}{suffix}"

    def dense(self, form: str, suffix: str) -> Path:
        """Return the path of the dense network's file."""
        return self.path / form / "dense" / f"{STEM}{suffix}"

    def timed_beside(self, form: str, suffix: str) -> Path:
        """Return the path of the dense network's file: the published one if nothing was cut.

        Raises:
            RunError: nothing was cut, and the published file is not the one that was published.
        """
        dense, entry = self.dense(form, suffix), self.recorded.get(form, {})
        uncut = "sha256" in entry and entry["sha256"] == entry.get("dense_sha256")
        if dense.is_file() or not uncut:
            return dense
        shipped = self.shipped(form, suffix)
        if shipped.is_file() and sha256_of(shipped) != entry["sha256"]:
            raise RunError(
                f"{shipped} is not the file that was exported: {self.manifest} has another digest",
                remedy=f"Export again: prunec export {self.path.parent}",
            )
        return shipped

    def candidate(self, form: str, suffix: str) -> Path:
        """Return the path of a file before it is checked; a file that fails stays there."""
        return self.path / form / "rejected" / f"{STEM}{suffix}"

    @property
    def recorded(self) -> dict[str, dict[str, Any]]:
        """Form → its entry in the manifest; empty if the manifest is missing or damaged."""
        try:
            manifest = parse_record(self.manifest)
        except DamagedRecord:
            return {}
        return {form: entry for form, entry in manifest.items() if isinstance(entry, dict)}

    @property
    def said(self) -> dict[str, dict[str, Any]]:
        """Form → its entry in the manifest, even if the manifest was changed.

        Raises:
            DamagedRecord: it cannot be read or parsed.
        """
        try:
            manifest = json.loads(self.manifest.read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            manifest = parse_record(self.manifest)
        manifest = manifest if isinstance(manifest, dict) else {}
        return {form: entry for form, entry in manifest.items() if isinstance(entry, dict)}

    @property
    def flaw(self) -> str:
        """Why the manifest cannot be trusted; empty where it can."""
        try:
            read_record(self.manifest)
        except DamagedRecord as error:
            return error.message
        return ""

    @property
    def forms(self) -> tuple[str, ...]:
        """Published forms: those in the manifest, and others that have a file."""
        recorded = self.recorded
        there = {path.parent.name for path in self.path.glob(f"*/{STEM}.*")}
        # The manifest's order is that of the recipe: the first form decides headlines.
        return (*recorded, *sorted(there - recorded.keys()))
