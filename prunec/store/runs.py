"""Folder of a run: all files that a training wrote and that later commands read.

runs/<recipe>-<number>/
├── recipe.toml        the recipe as it ran, defaults filled in
├── run.json           version and time of creation, status, command line, digests of records
├── environment.json   versions and machine
├── settings.json      measured settings of each training pass: precision, layout, threads
├── metrics.jsonl      one JSON object per line and epoch
├── checkpoint/        state from which a stopped training continues
├── steps/NN-name/     the artifact after each pass
├── export/            exported files and reports of their checks
└── report.html        everything above as one page

See docs/glossary.md: run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from prunec.errors import DamagedRecord, ReadOnlyRun, RunError
from prunec.files import write_text_atomic
from prunec.recipe import Recipe, digest, loads
from prunec.store.exports import ExportFolder
from prunec.store.records import DIGEST, parse_record, record_text

Status = Literal["new", "training", "interrupted", "failed", "trained", "exported"]
ENVIRONMENT, SETTINGS, METRICS = "environment.json", "settings.json", "metrics.jsonl"


@dataclass(frozen=True)
class RunFolder:
    """A run on disk; every property reads its file anew.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def name(self) -> str:
        """Name of the folder: the recipe's name and a number."""
        return self.path.name

    @property
    def recipe(self) -> Recipe:
        """The recipe of the run; only device and place of the data may have been edited.

        Raises:
            RunError: the file cannot be read, or is not the recipe that the run started with.
            RecipeError: it is not a valid recipe.
        """
        path = self.path / "recipe.toml"
        text = _text(path)
        recipe = loads(text, str(path))
        self._require_began_with(recipe, text)
        return recipe

    def _require_began_with(self, recipe: Recipe, text: str) -> None:
        record = self.record
        # An earlier build filled in other defaults, but took the digest of this very text.
        began = record.get("digest") in (_sha256(text), digest(recipe))
        if not began and record.get("digest_anywhere") != digest_anywhere(recipe):
            raise RunError(
                f"{self.path / 'recipe.toml'} is not the recipe that the run started with: it was "
                "changed",
                remedy="Undo the change, or start a new run with it: copy it elsewhere, then "
                "prunec train FILE (prunec export FILE without a training pass).",
            )

    @property
    def record(self) -> dict[str, Any]:
        """Contents of run.json, without its digest.

        Raises:
            DamagedRecord: it cannot be read, or was changed after it was written.
        """
        return {key: value for key, value in self._record.items() if key != DIGEST}

    @property
    def _record(self) -> dict[str, Any]:
        path = self.path / "run.json"
        record = parse_record(path)
        if "id" in record and DIGEST not in record:
            raise DamagedRecord(f"{path} was changed after it was written: it has no digest")
        return record

    @property
    def identity(self) -> str:
        """Unique identity of this run and its copies.

        Empty for a run of an earlier build, which wrote records without digests.
        """
        if not (self.path / "run.json").is_file():
            return ""
        return str(self.record.get("id", ""))

    @property
    def made_by(self) -> str:
        """Version, build and date of the prunec that created the run, in words."""
        record = self.record
        build = f", build {record['build']}" if "build" in record else ""
        return f"prunec {record.get('prunec')}{build}, {record.get('created', 'long ago')}"

    @property
    def kept(self) -> dict[str, str]:
        """Path of a record in the folder → its digest when it was written."""
        digests = self.record.get("records", {})
        return {str(k): str(v) for k, v in digests.items()} if isinstance(digests, dict) else {}

    def keep(self, digests: Mapping[str, str]) -> None:
        """Store digests of records in run.json; a run of an earlier build stores none."""
        if self.identity:
            self._write({**self.record, "records": {**self.kept, **digests}})

    @property
    def recipe_name(self) -> str:
        """Name of the recipe; empty where run.json is damaged."""
        return str(self.record_or_empty.get("recipe", ""))

    @property
    def record_or_empty(self) -> dict[str, Any]:
        """Contents of run.json; empty where it is damaged, so that listing the other runs works."""
        try:
            return self.record
        except RunError:
            return {}

    @property
    def status(self) -> str:
        """Recorded status of the run, one of `Status`."""
        return str(self.record.get("status", "new"))

    @property
    def metrics(self) -> Path:
        """Path of the metrics, one JSON object per line."""
        return self.path / METRICS

    @property
    def settings(self) -> Path:
        """Path of the measured settings of each training pass."""
        return self.path / SETTINGS

    @property
    def checkpoint(self) -> Path:
        """Path of the folder from which a stopped training continues."""
        return self.path / "checkpoint"

    @property
    def steps(self) -> Path:
        """Path of the folder of artifacts, one folder per pass."""
        return self.path / "steps"

    @property
    def export(self) -> ExportFolder:
        """Folder of the exported files."""
        return ExportFolder(self.path / "export")

    def step(self, number: int, name: str) -> Path:
        """Return the folder of the artifact after pass ``number`` (from 0)."""
        return self.steps / f"{number:02d}-{name}"

    def key(self, record: Path) -> str:
        """Return the key of a record in :attr:`kept`: its path in the folder."""
        return record.relative_to(self.path).as_posix()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from training, exporting or verifying while the block runs.

        Not re-entrant: a second acquire by the holder raises.

        Raises:
            RunError: another process, or this one, holds the run.
            ReadOnlyRun: the folder cannot be written.
        """
        lock = FileLock(self.path / ".lock", blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(
                f"another process is working on {self.path}",
                remedy="Wait for it or stop it; the run is free again when its process has ended.",
            ) from None
        except OSError as error:
            raise ReadOnlyRun(
                f"{self.path} cannot be written: {error.strerror or error}",
                remedy="Copy the run to a folder of your own, then repeat the command there.",
            ) from error
        with lock:
            yield

    def mark(self, status: Status, failure: str = "") -> None:
        """Record the status of the run and, if it failed, the reason."""
        record = {key: value for key, value in self.record.items() if key != "failure"}
        why = {"failure": failure} if failure else {}
        self._write({**record, "status": status, **why})

    def _write(self, record: dict[str, Any]) -> None:
        """Write run.json; that of an earlier build stays without a digest."""
        old = "id" not in record
        text = json.dumps(record, indent=2) + "\n" if old else record_text(record)
        write_text_atomic(self.path / "run.json", text)


def digest_anywhere(recipe: Recipe) -> str:
    """Return the digest of a recipe without device and place of the data, which may be edited."""
    data = recipe.data.model_copy(update={"root": "", "download": False, "workers": 0})
    return digest(recipe.model_copy(update={"device": "auto", "data": data}))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise RunError(
            f"{path} cannot be read: {why}",
            remedy="Restore it from a copy of the run, or remove the run: "
            f"prunec runs rm {path.parent}",
        ) from None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
