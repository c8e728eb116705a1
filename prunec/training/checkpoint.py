"""Checkpoints: the state after a step, written atomically, verified by digest when read.

``epoch-NNN`` and, within an epoch, ``epoch-NNN-step-NNNNNN`` hold ``tensors.safetensors`` and
``checkpoint.json``. The last ones are kept, and ``best`` beside them.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from prunec.errors import DamagedRecord, RunError
from prunec.files import folder_atomic, write_text_atomic
from prunec.store.records import parse_record, read_record, record_text
from prunec.tensor_files import read_tensors, write_tensors
from prunec.training.optimisation import OptimizerState
from prunec.training.stopping import require_metrics

PARTS = ("model", "optimizer", "method", "average")
BEST = "best"


@dataclass(frozen=True)
class Checkpoint:
    """State of a training after a step.

    Attributes:
        method: name of the training method.
        epoch: number of finished epochs.
        step: number of finished steps in the current epoch.
        model: state dict of the network.
        optimizer: state of the optimizer.
        tensors: state of the method.
        average: moving average of the weights; empty if there is none.
        history: metrics of every finished epoch.
        tally: sums of the unfinished epoch.
        scaler: state of the fp16 loss scaler; empty if there is none.
    """

    method: str
    epoch: int
    step: int
    model: Mapping[str, Tensor]
    optimizer: OptimizerState
    tensors: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    history: tuple[dict[str, Any], ...]
    tally: Mapping[str, float] = field(default_factory=dict)
    scaler: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the checkpoint's folder."""
        return f"epoch-{self.epoch:03d}" + (f"-step-{self.step:06d}" if self.step else "")

    @property
    def place(self) -> str:
        """Position in the training, in words."""
        if self.step:
            return f"after step {self.step} of epoch {self.epoch + 1}"
        return f"after epoch {self.epoch}"


def save_checkpoint(
    folder: Path, checkpoint: Checkpoint, *, keep: int, best: bool, run: str = ""
) -> None:
    """Write ``checkpoint`` into ``folder``, then remove all but the last ones.

    Args:
        folder: folder of the checkpoints.
        checkpoint: state to write.
        keep: number of checkpoints that stay.
        best: whether it also replaces the best one.
        run: identity of the run.

    Raises:
        RunError: the checkpoint cannot be written (disk full, read-only, no permission, …);
            earlier ones remain.
    """
    parts = (
        checkpoint.model, checkpoint.optimizer.tensors, checkpoint.tensors, checkpoint.average,
    )  # fmt: skip
    tensors = {
        f"{part}/{name}": tensor
        for part, group in zip(PARTS, parts, strict=True)
        for name, tensor in group.items()
    }
    with folder_atomic(folder / checkpoint.name) as place:
        digest = write_tensors(place / "tensors.safetensors", tensors)
        record = {
            "run": run,
            "method": checkpoint.method,
            "epoch": checkpoint.epoch,
            "step": checkpoint.step,
            "sha256": digest,
            "optimizer": dict(checkpoint.optimizer.numbers),
            "scaler": dict(checkpoint.scaler),
            "tally": dict(checkpoint.tally),
            "history": list(checkpoint.history),
        }
        write_text_atomic(place / "checkpoint.json", record_text(record))
        if best:  # before the rename: a process killed in between repeats this epoch
            with folder_atomic(folder / BEST) as other:
                shutil.copytree(place, other, copy_function=_link, dirs_exist_ok=True)
    torn = [path for path in folder.iterdir() if path.name.startswith(".")]  # by a killed process
    for old in [*_folders(folder)[keep:], *torn]:
        shutil.rmtree(old, ignore_errors=True)


def _link(source: str, target: str) -> None:
    """Hard-link a file of a checkpoint: these files are never written again."""
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def load_checkpoint(
    folder: Path, method: str, tell: Callable[[str], None], run: str = ""
) -> Checkpoint | None:
    """Return the newest sound checkpoint of ``method`` in ``folder``, or None.

    Args:
        folder: folder of the checkpoints.
        method: name of the training method; checkpoints of others are skipped.
        tell: function that takes a sentence on every damaged checkpoint that is skipped.
        run: identity of the run that saved them; empty for an earlier build, whose checkpoints
            have a digest of their tensors only.
    """
    for place in _folders(folder):
        try:
            checkpoint = _read(place, run)
            if checkpoint.name != place.name:
                raise DamagedRecord(f"{place} holds {checkpoint.name}")
        except RunError as error:
            tell(f"{error.message}; going back to the checkpoint before it")
            continue
        if checkpoint.method == method:
            return checkpoint
    return None


def load_best(
    folder: Path, method: str, epoch: int, tell: Callable[[str], None], run: str = ""
) -> Checkpoint | None:
    """Return the checkpoint after the best epoch, from ``best`` or from the kept ones.

    Args:
        folder: folder of the checkpoints.
        method: name of the training method.
        epoch: number of the best epoch.
        tell: function that takes a sentence on every place without that checkpoint.
        run: as in :func:`load_checkpoint`.

    Returns:
        The checkpoint; None if no sound one is left.
    """
    for place in (folder / BEST, folder / f"epoch-{epoch:03d}"):
        try:
            checkpoint = _read(place, run)
        except RunError as error:
            tell(error.message)
            continue
        if (checkpoint.method, checkpoint.epoch, checkpoint.step) == (method, epoch, 0):
            return checkpoint
        tell(f"{place} is not that of the best epoch, {epoch}, but {checkpoint.place}")
    return None


def clear_checkpoints(folder: Path) -> None:
    """Remove every checkpoint in ``folder``, so that the next training starts from scratch."""
    shutil.rmtree(folder, ignore_errors=True)


def _folders(folder: Path) -> list[Path]:
    """Return the folders of checkpoints, newest first."""
    if not folder.is_dir():
        return []
    pattern = re.compile(r"epoch-(\d+)(?:-step-(\d+))?")
    matches = [(pattern.fullmatch(place.name), place) for place in folder.iterdir()]
    # By number: from 1000 epochs on, names do not sort as text.
    numbered = [(int(m.group(1)), int(m.group(2) or 0), place) for m, place in matches if m]
    return [place for _, _, place in sorted(numbered, reverse=True)]


def _read(place: Path, run: str) -> Checkpoint:
    file, record_file = place / "tensors.safetensors", place / "checkpoint.json"
    record = read_record(record_file) if run else parse_record(record_file)
    try:
        if record.get("run", "") != run:
            raise DamagedRecord(f"{place} is of another run")
        parts = _split(read_tensors(file, str(record["sha256"])))
        return Checkpoint(
            method=str(record["method"]),
            epoch=int(record["epoch"]),
            step=int(record["step"]),
            model=parts["model"],
            optimizer=OptimizerState(parts["optimizer"], dict(record["optimizer"])),
            tensors=parts["method"],
            average=parts["average"],
            tally={key: float(value) for key, value in dict(record["tally"]).items()},
            history=_history(record["history"]),
            scaler=dict(record["scaler"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise DamagedRecord(f"{place} is damaged: {type(error).__name__} {error}") from error


def _history(epochs: Iterable[Any]) -> tuple[dict[str, Any], ...]:
    """Return the metrics of every finished epoch; raise if training cannot continue from them."""
    history = tuple(dict(epoch) for epoch in epochs)
    require_metrics(history)
    return history


def _split(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for key, tensor in tensors.items():
        part, _, name = key.partition("/")
        parts[part][name] = tensor
    return parts
