"""Checkpoints: the state after a step, whole or not there, checked by digest when read back.

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
    """The state of a training after a step.

    Attributes:
        method: the name of the method that trained.
        epoch: number of finished epochs.
        step: number of steps done in the epoch after them.
        model: the network's state dict.
        optimizer: what it remembers of every parameter.
        tensors: the method's own state.
        average: the moving average of the weights; empty where none is kept.
        history: the metrics of every finished epoch.
        tally: the sums of the epoch that is not finished.
        scaler: the state of the fp16 loss scaler; empty where none is used.
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
        """The name of its folder."""
        return f"epoch-{self.epoch:03d}" + (f"-step-{self.step:06d}" if self.step else "")

    @property
    def place(self) -> str:
        """Where the training stood, for people."""
        if self.step:
            return f"after step {self.step} of epoch {self.epoch + 1}"
        return f"after epoch {self.epoch}"


def save_checkpoint(
    folder: Path, checkpoint: Checkpoint, *, keep: int, best: bool, run: str = ""
) -> None:
    """Write ``checkpoint`` into ``folder``, then drop all but the last ones.

    Args:
        folder: where checkpoints lie.
        checkpoint: the state.
        keep: how many stay.
        best: whether it also takes the place of the best one.
        run: what tells its run from others.

    Raises:
        RunError: the system refused (disk full, read-only, no permission, …); those that were there
            still are.
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
        if best:  # first: whoever is killed in between goes on from before, and comes here again
            with folder_atomic(folder / BEST) as other:
                shutil.copytree(place, other, copy_function=_link, dirs_exist_ok=True)
    torn = [path for path in folder.iterdir() if path.name.startswith(".")]  # by a killed process
    for old in [*_folders(folder)[keep:], *torn]:
        shutil.rmtree(old, ignore_errors=True)


def _link(source: str, target: str) -> None:
    """Files of a checkpoint are never written again: two names for one will do."""
    try:
        os.link(source, target)
    except OSError:  # a file system that has none
        shutil.copy2(source, target)


def load_checkpoint(
    folder: Path, method: str, tell: Callable[[str], None], run: str = ""
) -> Checkpoint | None:
    """Return the newest sound checkpoint that ``method`` wrote to ``folder``, or None.

    Args:
        folder: where checkpoints lie.
        method: the name of the method that trains; others' checkpoints are passed over.
        tell: is told, in a sentence, of every damaged checkpoint that is passed over.
        run: what tells the run from others, as they were saved with it; empty: of an earlier build,
            whose checkpoints have a digest of their tensors alone.
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
    """Return the checkpoint after the best epoch, of ``best`` or of those kept beside it.

    Args:
        folder: where checkpoints lie.
        method: the name of the method that trains.
        epoch: the best one.
        tell: is told, in a sentence, of every place that does not hold it.
        run: as in :func:`load_checkpoint`.

    Returns:
        The checkpoint; None where no sound one is left.
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
    """Remove every checkpoint in ``folder``: what trains next starts from nothing."""
    shutil.rmtree(folder, ignore_errors=True)


def _folders(folder: Path) -> list[Path]:
    """Return the folders of checkpoints, newest first."""
    if not folder.is_dir():
        return []
    pattern = re.compile(r"epoch-(\d+)(?:-step-(\d+))?")
    found = [(pattern.fullmatch(place.name), place) for place in folder.iterdir()]
    numbered = [(int(m.group(1)), int(m.group(2) or 0), place) for m, place in found if m]
    return [place for _, _, place in sorted(numbered, reverse=True)]


def _read(place: Path, run: str) -> Checkpoint:
    file, said = place / "tensors.safetensors", place / "checkpoint.json"
    record = read_record(said) if run else parse_record(said)
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


def _history(said: Iterable[Any]) -> tuple[dict[str, Any], ...]:
    """The metrics of every finished epoch; an error where training could not go on from them."""
    history = tuple(dict(epoch) for epoch in said)
    require_metrics(history)
    return history


def _split(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for key, tensor in tensors.items():
        part, _, name = key.partition("/")
        parts[part][name] = tensor
    return parts
