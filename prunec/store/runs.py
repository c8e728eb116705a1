"""The folder of a run: everything that one training wrote and what later commands read.

runs/<recipe>-<number>/
├── recipe.toml        the recipe as it ran, defaults filled in
├── run.json           who made it and when, its status, its command line
├── environment.json   versions and machine
├── metrics.jsonl      one line a step of interest, one object a line
├── checkpoint/        where a stopped training continues
├── steps/NN-name/     the artifact after each pass
├── export/            what ships, and the reports of its checks
└── report.html        all of this as one page
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from prunec.errors import DamagedRecord, ReadOnlyRun, RunError
from prunec.recipe import Recipe, digest, dumps, loads
from prunec.store.environment import environment, prunec_version
from prunec.store.exports import ExportFolder
from prunec.store.records import DIGEST, parse_record, record_text

Status = Literal["new", "training", "interrupted", "failed", "trained", "exported"]


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
        if not began and record.get("digest_anywhere") != _digest_anywhere(recipe):
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

    def recorded_step(self, folder: str) -> str:
        """Return the digest of the record in a folder of ``steps``; empty where none is known."""
        steps = self.record.get("steps")
        return str(steps.get(folder, "")) if isinstance(steps, dict) else ""

    def keep_step(self, folder: str, record_digest: str) -> None:
        """Write down the digest of the record in a folder of ``steps``."""
        record = self.record
        steps = {**record.get("steps", {}), folder: record_digest}
        self._write({**record, "steps": steps})

    @property
    def recipe_name(self) -> str:
        """The recipe's name; empty where run.json is damaged."""
        return str(_json_or_empty(self).get("recipe", ""))

    @property
    def status(self) -> str:
        """How far the run came: one of `Status`."""
        return str(self.record.get("status", "new"))

    @property
    def metrics(self) -> Path:
        """The file of metrics, one JSON object a line."""
        return self.path / "metrics.jsonl"

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
        _write(self.path / "run.json", text)


def runs_root(option: Path | None = None) -> Path:
    """Return the folder of the runs: ``option``, or PRUNEC_RUNS, or ``runs``."""
    return option or Path(os.environ.get("PRUNEC_RUNS") or "runs")


def create_run(
    recipe: Recipe,
    root: Path,
    command: Sequence[str] | None = None,
    folder: Path | None = None,
) -> RunFolder:
    """Return a new run folder ``root/<recipe>-<number>`` that says what will run and where.

    Args:
        recipe: the recipe, overrides applied.
        root: the folder of the runs; made if it is not there.
        command: the command line; that of this process by default.
        folder: where the run lies instead; it must be empty or not there.

    Raises:
        RunError: the folder cannot be made or written, or holds something.
    """
    run = RunFolder(_empty_folder(folder) if folder else _new_folder(recipe.name, root))
    record = {
        "prunec": prunec_version(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "sequence": 1 + max((_sequence(other) for other in run_folders(root)), default=0),
        "recipe": recipe.name,
        "digest": digest(recipe),
        "digest_anywhere": _digest_anywhere(recipe),
        "id": uuid.uuid4().hex,
        "steps": {},
        "status": "new",
        "launch": os.environ.get("TORCHELASTIC_RUN_ID", ""),
        "command": list(sys.argv if command is None else command),
    }
    _write(run.path / "recipe.toml", dumps(recipe))
    _write(run.path / "environment.json", record_text(environment()))
    _write(run.path / "run.json", record_text(record))  # last: it makes the folder a run
    return run


def open_run(path: Path) -> RunFolder:
    """Return the run in the folder ``path``.

    Raises:
        RunError: no run is there, or another version of prunec wrote it.
    """
    if not (path / "run.json").is_file():
        raise RunError(
            f"{path} is not a run folder: it holds no run.json", remedy=runs_there(path.parent)
        )
    run = RunFolder(path)
    written, ours = _version_in(path / "run.json"), prunec_version()
    if written.split(".")[:2] != ours.split(".")[:2]:
        raise RunError(
            f"{path} was written by prunec {written}, this is prunec {ours}",
            remedy=f"Install that version (pip install 'prunec=={written}') or train anew: "
            f"prunec train {path / 'recipe.toml'}",
        )
    run.record  # noqa: B018 — what is damaged is told before anything else
    return run


def _version_in(path: Path) -> str:
    """The version that wrote a record, whatever its digest: another may take it otherwise."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        found = {}
    whole = isinstance(found, dict) and "prunec" in found
    return str(found["prunec"]) if whole else prunec_version()


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
    return open_run(max(runs, key=lambda run: (_sequence(run), run.name)).path)


def launched_run(root: Path) -> RunFolder | None:
    """Return the latest run that this very torchrun began, if there is one."""
    launch = os.environ.get("TORCHELASTIC_RUN_ID", "")
    runs = [run for run in run_folders(root) if _json_or_empty(run).get("launch") == launch]
    return max(runs, key=_sequence) if launch and runs else None


def run_folders(root: Path) -> list[RunFolder]:
    """Return the runs in ``root``, sorted by name, whoever wrote them."""
    return [RunFolder(path.parent) for path in sorted(root.glob("*/run.json"))]


def runs_there(root: Path) -> str:
    """Return the sentence that names the runs in ``root``."""
    names = [run.name for run in run_folders(root)]
    return f"Runs in {root}: {', '.join(names)}." if names else "Train one: prunec train gdp_mbv2"


def _empty_folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise RunError(f"{path} is not empty", remedy="Name a new folder: -o DIR")
    except OSError as error:
        raise RunError(f"{path} cannot be made: {error.strerror}") from error
    return path


def _new_folder(name: str, root: Path) -> Path:
    try:
        root.mkdir(parents=True, exist_ok=True)
        pattern = re.compile(rf"{re.escape(name)}-(\d+)")
        numbers = [
            int(m.group(1)) for path in root.iterdir() if (m := pattern.fullmatch(path.name))
        ]
        number = max(numbers, default=0) + 1
        while True:
            try:
                path = root / f"{name}-{number:03d}"
                path.mkdir()
                return path
            except FileExistsError:  # another process took this number
                number += 1
    except OSError as error:
        raise RunError(
            f"no run folder can be made in {root}: {error.strerror}",
            remedy="Name a folder that can be written: --runs DIR, or the variable PRUNEC_RUNS.",
        ) from error


def _sequence(run: RunFolder) -> int:
    number = _json_or_empty(run).get("sequence", 0)
    return number if isinstance(number, int) else 0


def _json_or_empty(run: RunFolder) -> dict[str, Any]:
    try:
        return run.record
    except RunError:
        return {}  # a damaged neighbour must not keep others from being found


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None


def _digest_anywhere(recipe: Recipe) -> str:
    """The digest of a recipe but for where its data lie and on what it computes."""
    data = recipe.data.model_copy(update={"root": "", "download": False, "workers": 0})
    return digest(recipe.model_copy(update={"device": "auto", "data": data}))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _write(path: Path, text: str) -> None:
    from prunec.files import write_text_atomic  # here: it imports torch, completion needs none

    write_text_atomic(path, text)
