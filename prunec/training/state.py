"""State of a training, between the run's folder and the tensors on the device."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from prunec.errors import RunError
from prunec.store.metrics import MetricsLog
from prunec.training.averaging import Average
from prunec.training.checkpoint import (
    Checkpoint,
    clear_checkpoints,
    load_best,
    load_checkpoint,
    save_checkpoint,
)
from prunec.training.context import Context
from prunec.training.optimisation import load_state, state_of
from prunec.training.step import Stepper
from prunec.training.stopping import best_epoch, is_best
from prunec.training.tensorboard_log import Board


class Keeper:
    """Writer and reader of checkpoints and metrics; rank 0 writes, every rank reads.

    Attributes:
        history: metrics of every finished epoch.
    """

    def __init__(self, context: Context) -> None:
        self.context, self.method = context, context.pass_name
        self.run, self.processes, self.train = context.run, context.processes, context.recipe.train
        self.history: list[dict[str, Any]] = []
        self.place = ""
        writes = self.train.tensorboard and self.processes.first
        self.board = Board(self.run.path / "tensorboard") if writes else None
        self.log = MetricsLog(self.run.metrics, self.run.identity)
        self.saved = time.monotonic()

    def kept(self) -> str:
        """Return a sentence on what is saved; empty if nothing is."""
        folder = self.run.checkpoint
        return f"The state {self.place} is kept in {folder}. " if self.place else ""

    def resumed(self) -> Checkpoint | None:
        """Return the checkpoint to continue from; without one, remove leftovers of others."""
        checkpoint = None
        if self.context.resume:
            note = self.context.progress.note
            checkpoint = load_checkpoint(self.run.checkpoint, self.method, note, self.run.identity)
            self._require_same(checkpoint.name if checkpoint else "")
        self.processes.wait()
        if self.processes.first:
            if checkpoint is None:
                clear_checkpoints(self.run.checkpoint)
            history = checkpoint.history if checkpoint else ()
            wrong = self.log.rewrite(self.method, history)
            if wrong and self.run.identity:
                lines = ", ".join(map(str, wrong))
                self.context.progress.note(
                    f"{self.run.metrics} was changed after it was written: line {lines} of earlier "
                    "passes is left out"
                )
        if checkpoint:
            self.place = checkpoint.place
            self.context.progress.note(f"Continuing {checkpoint.place}.")
        self.processes.wait()
        return checkpoint

    def close(self) -> None:
        """Close the files written throughout the training."""
        if self.board:
            self.board.close()

    def best(self) -> Checkpoint | None:
        """Return the best checkpoint, on every rank; report if no sound one is left."""
        self.processes.wait()
        note, epoch = self.context.progress.note, best_epoch(self.history)
        if not epoch:
            return None
        checkpoint = load_best(self.run.checkpoint, self.method, epoch, note, self.run.identity)
        if checkpoint is None:
            note(f"The weights of the best epoch, {epoch}, are lost: the last ones go on.")
        return checkpoint

    def restore(self, checkpoint: Checkpoint, take: Stepper, average: Average) -> None:
        """Set network, optimizer, method and average to the state of the checkpoint."""
        take.model.load_state_dict(dict(checkpoint.model))
        load_state(take.named, take.optimizer, checkpoint.optimizer)
        take.method.load_tensors(checkpoint.tensors)
        average.load(checkpoint.average)
        if checkpoint.scaler:
            take.scaler.load_state_dict(dict(checkpoint.scaler))
        self.history[:] = checkpoint.history

    def wanted(self, asked: bool) -> tuple[bool, bool]:
        """Return whether any rank was asked to stop, and whether a checkpoint is due."""
        due = time.monotonic() - self.saved > 60 * self.train.checkpoint_minutes
        if self.processes.several:
            # Clocks differ, so the first process alone says whether one is due.
            flags = self.processes.sum(torch.tensor([asked, due and self.processes.first]).long())
            asked, due = (bool(flag) for flag in flags.tolist())
        return asked, due

    def end_epoch(self, metrics: dict[str, Any], take: Stepper, average: Average) -> None:
        """Record an epoch: a checkpoint if one is due, then its metrics."""
        epoch = int(metrics["epoch"])
        due = epoch % self.train.checkpoint_epochs == 0 or epoch == self.train.epochs
        if due or (self.train.ship == "best" and is_best([*self.history, metrics])):
            self.save(epoch, 0, take, average, metrics=metrics)
            return
        self.history.append(metrics)
        self._log(metrics)

    def stop_after(self, epoch: int, take: Stepper, average: Average) -> str:
        """Let the checkpoint of a recorded epoch be there; return the place in words."""
        place = f"after epoch {epoch}"
        if self.place != place:
            self.save(epoch, 0, take, average)
        return place

    def save(
        self,
        epoch: int,
        step: int,
        take: Stepper,
        average: Average,
        *,
        metrics: dict[str, Any] | None = None,
        tally: Mapping[str, float] | None = None,
    ) -> None:
        """Write a checkpoint; at the end of an epoch with its metrics."""
        if metrics:
            self.history.append(metrics)
        checkpoint = Checkpoint(
            method=self.method,
            epoch=epoch,
            step=step,
            model=take.model.state_dict(),
            optimizer=state_of(take.named, take.optimizer),
            tensors=take.method.tensors(),
            average=average.values,
            history=tuple(self.history),
            tally=tally or {},
            scaler=take.scaler.state_dict(),
        )
        if self.processes.first:
            best = bool(metrics) and is_best(self.history)
            save_checkpoint(
                self.run.checkpoint,
                checkpoint,
                keep=self.train.keep,
                best=best,
                run=self.run.identity,
            )
        if metrics:
            # After the checkpoint, whose history rewrites this file when a run is resumed.
            self._log(metrics)
        self.place, self.saved = checkpoint.place, time.monotonic()

    def _log(self, metrics: dict[str, Any]) -> None:
        if self.processes.first:
            self.log.append(metrics)
            if self.board:
                self.board.add(metrics, metrics["epoch"])

    def _require_same(self, name: str) -> None:
        """Refuse, on every rank, to continue from different checkpoints."""
        wanted = self.processes.share(name)
        others = int(self.processes.sum(torch.tensor(int(name != wanted))))
        if others:
            raise RunError(
                f"{others} of {self.processes.count} processes do not find in "
                f"{self.run.checkpoint} what the first one goes on from: {wanted or 'nothing'}",
                remedy="Name a folder of runs that all machines share: --runs DIR.",
            )
