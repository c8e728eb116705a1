"""Checkpoints of a training, and what becomes of damaged copies of their folder."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from mutant_table import Outcome
from run_contents import contents
from run_edits import Edit, byte_edits, record_edits

from prunec.training.checkpoint import Checkpoint, load_best, load_checkpoint, save_checkpoint
from prunec.training.optimisation import OptimizerState

RUN = "this run"
_TAKEN = ("epoch-002-step-000030", "best")
"""The folders that a training goes on from."""


def checkpoint(epoch: int, step: int, noise: int) -> Checkpoint:
    """A checkpoint whose tensors ``noise`` draws."""
    generator = torch.Generator().manual_seed(noise)
    weights = {name: torch.randn(4, 3, generator=generator) for name in ("a", "b.weight")}
    return Checkpoint(
        method="train-dense",
        epoch=epoch,
        step=step,
        model=weights,
        optimizer=OptimizerState({"a/momentum": torch.rand(4, 3)}, {"a/step": 7.0}),
        tensors={"gates/0": torch.tensor([True, False])},
        average={"a": torch.rand(4, 3, generator=generator)},
        history=tuple(
            {"epoch": e + 1, "settled": True, "seconds": 2.0, "test_accuracy": 50.0 + e}
            for e in range(epoch)
        ),
        tally={"loss": 0.25, "images": 48.0} if step else {},
        scaler={"scale": 1024.0},
    )


class CheckpointBench:
    """Damages one file of a folder of checkpoints and reads the folder as a training does.

    Harmful is damage of a checkpoint that would be taken up, told without prunec: its tensors, or
    what its record says, are others or cannot be read.

    Args:
        folder: where everything lies.
    """

    def __init__(self, folder: Path) -> None:
        self.whole, self.other, self.copy = (folder / n for n in ("whole", "other", "copy"))
        for place, run, noise in ((self.whole, RUN, 0), (self.other, "another run", 9)):
            for epoch, step in ((1, 0), (2, 0), (2, 30)):
                state = checkpoint(epoch, step, noise + epoch + step)
                save_checkpoint(place, state, keep=3, best=not step, run=run)

    def mutants(self, count: int, seed: int) -> list[tuple[str, str, Edit]]:
        """Return file, kind and damage of as many mutants, spread over all files."""
        rng = random.Random(seed)
        made: list[tuple[str, str, Edit]] = []
        while len(made) < count:
            made += self._round(rng)
        return rng.sample(made, count)

    def _round(self, rng: random.Random) -> Iterator[tuple[str, str, Edit]]:
        for path in sorted(self.whole.rglob("*.*")):
            name = str(path.relative_to(self.whole))
            edits = list(byte_edits(path, self.other / name, rng))
            if path.suffix == ".json":
                edits += [e for e in record_edits(path, rng, 12) if e[0] != "forged"]
            neighbour = self.whole / "epoch-001" / path.name
            if neighbour.read_bytes() != path.read_bytes():
                edits.append(("of an earlier epoch", lambda p, n=neighbour: _replace(p, n)))  # type: ignore[misc]
            for kind, edit in edits:
                yield name, kind, edit

    def judge(self, name: str, kind: str, edit: Edit) -> Outcome:
        """Return whether what is read of a damaged copy is one of the checkpoints written."""
        shutil.copytree(self.whole, self.copy)
        told: list[str] = []
        try:
            edit(self.copy / name)
            taken = Path(name).parent.name in _TAKEN
            harmful = taken and contents(self.copy / name) != contents(self.whole / name)
            newest = load_checkpoint(self.copy, "train-dense", told.append, RUN)
            best = load_best(self.copy, "train-dense", 2, told.append, RUN)
        except Exception as error:  # what the bench is there to find
            return Outcome(kind, name, True, False, f"{type(error).__name__}: {error}", None)
        finally:
            shutil.rmtree(self.copy)
        sound = all(self._was_written(actual) for actual in (newest, best)) and best is not None
        named = any(Path(name).parent.name in text for text in told)
        return Outcome(kind, name, harmful or not sound, sound, "", named)

    def _was_written(self, actual: Checkpoint | None) -> bool:
        if actual is None:
            return False
        whole = checkpoint(actual.epoch, actual.step, actual.epoch + actual.step)
        same = (actual.history, actual.tally, actual.scaler) == (
            whole.history, whole.tally, whole.scaler,
        )  # fmt: skip
        return same and all(
            torch.equal(group[key], expected[key])
            for group, expected in ((actual.model, whole.model), (actual.average, whole.average))
            for key in expected
        )


def _replace(path: Path, by: Path) -> None:
    data = by.read_bytes()
    path.unlink()
    path.write_bytes(data)
