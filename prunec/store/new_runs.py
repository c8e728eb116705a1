"""Creation of a run folder: number, recipe, environment and record, before anything runs."""

from __future__ import annotations

import os
import re
import sys
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from prunec.errors import RunError
from prunec.files import write_text_atomic
from prunec.recipe import Recipe, digest, dumps
from prunec.store.environment import build, environment, prunec_version
from prunec.store.finding import run_folders, sequence
from prunec.store.records import BEGAN, beginning_digest, record_digest, record_text
from prunec.store.runs import ENVIRONMENT, RunFolder, digest_anywhere


def create_run(
    recipe: Recipe,
    root: Path,
    command: Sequence[str] | None = None,
    folder: Path | None = None,
) -> RunFolder:
    """Create a run folder ``root/<recipe>-<number>`` with recipe, environment and run.json.

    Args:
        recipe: the recipe, overrides applied.
        root: the folder of the runs; created if missing.
        command: the command line; that of this process by default.
        folder: another place of the run's folder; it must be empty or missing.

    Raises:
        RunError: the folder cannot be created or written, or is not empty.
    """
    run = RunFolder(_empty_folder(folder) if folder else _new_folder(recipe.name, root))
    record = {
        "prunec": prunec_version(),
        "build": build(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "sequence": 1 + max((sequence(other) for other in run_folders(root)), default=0),
        "recipe": recipe.name,
        "digest": digest(recipe),
        "digest_anywhere": digest_anywhere(recipe),
        "id": uuid.uuid4().hex,
        "status": "new",
        "launch": os.environ.get("TORCHELASTIC_RUN_ID", ""),
        "command": list(sys.argv if command is None else command),
    }
    machine = {**environment(), BEGAN: beginning_digest(record)}
    record["records"] = {ENVIRONMENT: record_digest(machine)}
    write_text_atomic(run.path / "recipe.toml", dumps(recipe))
    write_text_atomic(run.path / ENVIRONMENT, record_text(machine))
    write_text_atomic(run.path / "run.json", record_text(record))  # last: it makes it a run
    return run


def _empty_folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise RunError(f"{path} is not empty", remedy="Name a new folder: -o DIR.")
    except OSError as error:
        raise RunError(f"{path} cannot be created: {error.strerror}") from error
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
            f"no run folder can be created in {root}: {error.strerror}",
            remedy="Name a folder that can be written: --runs DIR, or the variable PRUNEC_RUNS.",
        ) from error
