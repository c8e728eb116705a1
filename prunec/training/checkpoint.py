"""Checkpoints: the state after an epoch, whole or not there, checked by digest when read back.

``epoch-NNN/`` holds ``tensors.safetensors`` and ``checkpoint.json``; the last two are kept.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from prunec.errors import RunError
from prunec.files import folder_atomic, read_tensors, write_tensors, write_text_atomic

KEPT = 2
PARTS = ("model", "optimizer", "method")


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after a number of epochs.

    Attributes:
        method: the name of the method that trained.
        epoch: number of finished epochs.
        model: the network's state dict.
        optimizer: parameter name → momentum.
        tensors: the method's own state.
        history: the metrics of every finished epoch.
        scaler: the state of the fp16 loss scaler; empty where none is used.
    """

    method: str
    epoch: int
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor]
    history: tuple[dict[str, Any], ...]
    scaler: Mapping[str, float] = field(default_factory=dict)


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` to ``folder``/epoch-NNN, then drop all but the last two.

    Raises:
        RunError: the system refused (disk full, read-only, no permission, …).
    """
    parts = (checkpoint.model, checkpoint.optimizer, checkpoint.tensors)
    tensors = {
        f"{part}/{name}": tensor
        for part, group in zip(PARTS, parts, strict=True)
        for name, tensor in group.items()
    }
    with folder_atomic(folder / f"epoch-{checkpoint.epoch:03d}") as place:
        write_tensors(place / "tensors.safetensors", tensors)
        record = {
            "method": checkpoint.method,
            "epoch": checkpoint.epoch,
            "sha256": _digest(place / "tensors.safetensors"),
            "scaler": dict(checkpoint.scaler),
            "history": list(checkpoint.history),
        }
        write_text_atomic(place / "checkpoint.json", json.dumps(record, indent=1) + "\n")
    for old in _folders(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path, method: str, tell: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest sound checkpoint that ``method`` wrote to ``folder``, or None.

    Args:
        folder: where checkpoints lie.
        method: the name of the method that trains; others' checkpoints are passed over.
        tell: is told, in a sentence, of every damaged checkpoint that is passed over.
    """
    for place in _folders(folder):
        try:
            checkpoint = _read(place)
        except RunError as error:
            tell(f"{error.message}; going back to the checkpoint before it")
            continue
        if checkpoint.method == method:
            return checkpoint
    return None


def clear_checkpoints(folder: Path) -> None:
    """Remove every checkpoint in ``folder``: what trains next starts from nothing."""
    for place in _folders(folder):
        shutil.rmtree(place, ignore_errors=True)


def _folders(folder: Path) -> list[Path]:
    """Return the folders of checkpoints, newest first."""
    if not folder.is_dir():
        return []
    found = [(re.fullmatch(r"epoch-(\d+)", place.name), place) for place in folder.iterdir()]
    numbered = [(int(match.group(1)), place) for match, place in found if match]
    return [place for _, place in sorted(numbered, reverse=True)]


def _read(place: Path) -> Checkpoint:
    file = place / "tensors.safetensors"
    try:
        record = json.loads((place / "checkpoint.json").read_text("utf-8"))
        if record["sha256"] != _digest(file):
            raise RunError(f"{file} is damaged: its digest is not the one written down")
        parts = _split(read_tensors(file))
        return Checkpoint(
            method=str(record["method"]),
            epoch=int(record["epoch"]),
            model=parts["model"],
            optimizer=parts["optimizer"],
            tensors=parts["method"],
            history=tuple(record["history"]),
            scaler=dict(record["scaler"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{place} is damaged: {type(error).__name__} {error}") from error


def _split(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for key, tensor in tensors.items():
        part, _, name = key.partition("/")
        parts[part][name] = tensor
    return parts


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
