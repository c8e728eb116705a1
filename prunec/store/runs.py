"""The folder of a run: everything that one training wrote and what later commands read.

runs/<recipe>-<number>/
├── recipe.toml        the recipe as it ran, defaults filled in
├── run.json           who made it and when, its status, its command line, its records' digests
├── environment.json   versions and machine
├── settings.json      how each training pass computes
├── metrics.jsonl      one object a line, one line an epoch
├── checkpoint/        where a stopped training continues
├── steps/NN-name/     the artifact after each pass
├── export/            what ships, and the reports of its checks
└── report.html        all of this as one page
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
    """A run on disk; nothing is kept in memory.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def name(self) -> str:
        """The folder's name: the recipe's, and a number."""
        return self.path.name

    @property
    def recipe(self) -> Recipe:
        """The recipe as it ran; only where its data lie and on what it computes may change.

        Raises:
            RunError: the file cannot be read, or is not the recipe that the run began with.
            RecipeError: it is no valid recipe any more.
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
                f"{self.path / 'recipe.toml'} is not the recipe that the run began with: it was "
                "changed",
                remedy="Put back what it said, or begin a new run with it: copy it elsewhere, then "
                "prunec train FILE (prunec export FILE where nothing trains).",
            )

    @property
    def record(self) -> dict[str, Any]:
        """What run.json says.

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
        """What tells this run and its copies from all others; empty: of an earlier build.

        That build wrote records without digests.
        """
        if not (self.path / "run.json").is_file():
            return ""
        return str(self.record.get("id", ""))

    @property
    def made_by(self) -> str:
        """Which build of prunec began the run, in words."""
        record = self.record
        build = f", build {record['build']}" if "build" in record else ""
        return f"prunec {record.get('prunec')}{build}, {record.get('created', 'long ago')}"

    @property
    def kept(self) -> dict[str, str]:
        """The digests of the run's records, by their path in the folder, as they were written."""
        found = self.record.get("records", {})
        return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}

    def keep(self, digests: Mapping[str, str]) -> None:
        """Write down the digests of records; a run of an earlier build keeps none."""
        if self.identity:
            self._write({**self.record, "records": {**self.kept, **digests}})

    @property
    def recipe_name(self) -> str:
        """The recipe's name; empty where run.json is damaged."""
        return str(self.record_or_empty.get("recipe", ""))

    @property
    def record_or_empty(self) -> dict[str, Any]:
        """What run.json says; nothing where it is damaged: that must hide no other run."""
        try:
            return self.record
        except RunError:
            return {}

    @property
    def status(self) -> str:
        """How far the run came: one of `Status`."""
        return str(self.record.get("status", "new"))

    @property
    def metrics(self) -> Path:
        """The file of metrics, one JSON object a line."""
        return self.path / METRICS

    @property
    def settings(self) -> Path:
        """The file of how each training pass computes."""
        return self.path / SETTINGS

    @property
    def checkpoint(self) -> Path:
        """The folder from which a stopped training continues."""
        return self.path / "checkpoint"

    @property
    def steps(self) -> Path:
        """The folder of the artifacts, one folder a pass."""
        return self.path / "steps"

    @property
    def export(self) -> ExportFolder:
        """The folder of what ships."""
        return ExportFolder(self.path / "export")

    def step(self, number: int, name: str) -> Path:
        """Return the folder of the artifact after pass ``number`` (from 0)."""
        return self.steps / f"{number:02d}-{name}"

    def key(self, record: Path) -> str:
        """Return what a record in the folder is called in :attr:`kept`."""
        return record.relative_to(self.path).as_posix()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from training, exporting or verifying while the block runs.

        Not to be nested: who holds a run is refused it a second time.

        Raises:
            RunError: one does.
            ReadOnlyRun: the run can only be read.
        """
        lock = FileLock(self.path / ".lock", blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(
                f"another process is working on {self.path}",
                remedy="Wait for it or stop it; a run whose process has died is free again.",
            ) from None
        except OSError as error:
            raise ReadOnlyRun(
                f"{self.path} cannot be written: {error.strerror or error}",
                remedy="Copy the run to a folder of your own, then repeat the command there.",
            ) from error
        with lock:
            yield

    def mark(self, status: Status, failure: str = "") -> None:
        """Write down how far the run came, and why it went no further where it failed."""
        record = {key: value for key, value in self.record.items() if key != "failure"}
        why = {"failure": failure} if failure else {}
        self._write({**record, "status": status, **why})

    def _write(self, record: dict[str, Any]) -> None:
        """Write run.json; one of an earlier build stays without a digest."""
        old = "id" not in record
        text = json.dumps(record, indent=2) + "\n" if old else record_text(record)
        write_text_atomic(self.path / "run.json", text)


def digest_anywhere(recipe: Recipe) -> str:
    """Return the digest of a recipe but for where its data lie and on what it computes."""
    data = recipe.data.model_copy(update={"root": "", "download": False, "workers": 0})
    return digest(recipe.model_copy(update={"device": "auto", "data": data}))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise RunError(
            f"{path} cannot be read: {why}",
            remedy="It belongs to the run: put it back from a copy, or remove the run: "
            f"prunec runs rm {path.parent}",
        ) from None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
