"""Checkpoints: what is read is what was written, and damage falls back to the one before."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import Recorder, small_context, small_net

from prunec import files
from prunec.store.records import record_text
from prunec.training.checkpoint import Checkpoint, load_best, load_checkpoint, save_checkpoint
from prunec.training.loop import fit
from prunec.training.method import Method
from prunec.training.optimisation import OptimizerState


def line(epoch: int) -> dict[str, Any]:
    """The metrics of an epoch, as far as training asks them."""
    return {"epoch": epoch, "settled": True, "seconds": 1.0, "test_accuracy": 50.0}


def checkpoint(epoch: int, method: str = "m", step: int = 0) -> Checkpoint:
    return Checkpoint(
        method=method,
        epoch=epoch,
        step=step,
        model={"w": torch.full((2, 3), float(epoch)), "n": torch.tensor(epoch)},
        optimizer=OptimizerState(
            {"w/exp_avg": torch.full((2, 3), 0.5), "w/step": torch.tensor(7.0)}, {"w/mu": 0.25}
        ),
        tensors={"a/b": torch.tensor([True, False])},
        average={"w": torch.full((2, 3), 0.125)},
        tally={"loss": 0.1 + 0.2, "images": 48.0},
        history=tuple(line(e + 1) for e in range(epoch)),
        scaler={"scale": 1024.0},
    )


def save(folder: Path, state: Checkpoint, best: bool = False) -> None:
    save_checkpoint(folder, state, keep=2, best=best)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "one bit": lambda place: flip(place / "tensors.safetensors"),
    "truncated": lambda place: (place / "tensors.safetensors").write_bytes(b""),
    "tensors gone": lambda place: (place / "tensors.safetensors").unlink(),
    "record gone": lambda place: (place / "checkpoint.json").unlink(),
    "record cut": lambda place: (place / "checkpoint.json").write_text('{"epoch": 3'),
    "record of nothing": lambda place: (place / "checkpoint.json").write_text("[]"),
}


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    save(tmp_path, checkpoint(3, step=12))
    actual = load_checkpoint(tmp_path, "m", pytest.fail)
    assert actual is not None
    first = checkpoint(3, step=12)
    parts = [
        (getattr(first, part), getattr(actual, part)) for part in ("model", "tensors", "average")
    ]
    for written, read in [*parts, (first.optimizer.tensors, actual.optimizer.tensors)]:
        assert written.keys() == read.keys()
        assert all(torch.equal(read[key], written[key]) for key in written)
    assert actual.history == (line(1), line(2), line(3))
    assert (actual.epoch, actual.step, actual.scaler, actual.tally, actual.optimizer.numbers) == (
        3, 12, first.scaler, first.tally, first.optimizer.numbers,
    )  # fmt: skip


def test_the_last_two_are_kept_in_the_order_of_numbers_and_the_best(tmp_path: Path) -> None:
    for epoch, step in ((998, 0), (999, 0), (999, 20), (1000, 0)):
        save(tmp_path, checkpoint(epoch, step=step), best=epoch == 998)
    kept = ["best", "epoch-1000", "epoch-999-step-000020"]
    assert sorted(p.name for p in tmp_path.iterdir()) == kept
    best = load_best(tmp_path, "m", 998, pytest.fail)
    assert best is not None
    assert best.epoch == 998
    assert load_best(tmp_path, "other", 998, lambda _: None) is None
    actual = load_checkpoint(tmp_path, "m", pytest.fail)
    assert actual is not None
    assert actual.epoch == 1000


class Killed(BaseException):
    """End of the process: calls that would clean up have no effect after it."""


@pytest.mark.parametrize("moment", range(9))
def test_wherever_a_kill_falls_the_best_is_not_lost(
    moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the newest checkpoint is the best, ``best`` is: it would not be written again."""
    save(tmp_path, checkpoint(1), best=True)
    calls = 0

    def killing(act: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == moment:
                raise Killed
            return act(*args, **options) if calls < moment or moment == 0 else None

        return call

    for owner, name in ((Path, "rename"), (Path, "replace"), (files.shutil, "rmtree")):
        monkeypatch.setattr(owner, name, killing(getattr(owner, name)))
    with suppress(Killed):
        save(tmp_path, checkpoint(2), best=True)
    monkeypatch.undo()
    newest = load_checkpoint(tmp_path, "m", pytest.fail)
    assert newest is not None
    assert newest.epoch == 1 or load_best(tmp_path, "m", 2, pytest.fail) is not None


def test_another_methods_checkpoints_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path, checkpoint(1))
    assert load_checkpoint(tmp_path, "other", pytest.fail) is None
    assert load_checkpoint(tmp_path / "missing", "m", pytest.fail) is None


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_falls_back_to_the_one_before_and_says_so(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    save(tmp_path, checkpoint(2))
    save(tmp_path, checkpoint(3))
    damage(tmp_path / "epoch-003")
    told: list[str] = []
    actual = load_checkpoint(tmp_path, "m", told.append)
    assert actual is not None
    assert actual.epoch == 2
    assert len(told) == 1
    assert "epoch-003" in told[0]
    assert "the checkpoint before it" in told[0]


WRONG_HISTORIES = {
    "a number": 0.5,
    "no epoch": {key: value for key, value in line(1).items() if key != "epoch"},
    "no figure": {key: value for key, value in line(1).items() if key != "test_accuracy"},
    "a figure that is text": line(1) | {"test_accuracy": "good"},
    "no such epoch": line(-3),
    "a loss that is a list": line(1) | {"loss": [1.0]},
    "a dense phase that is a number": line(1) | {"dense_phase": 0.5},
    "a dense phase of no length": line(1) | {"dense_phase": {"accuracy": 50.0}},
    "a dense phase of text": line(1) | {"dense_phase": {"accuracy": "50", "epochs": 1.0}},
    "settled by text": line(1) | {"settled": "no"},
}


@pytest.mark.parametrize("name", WRONG_HISTORIES)
@pytest.mark.parametrize("place", ["best", "epoch-002"])
def test_a_history_that_does_not_hold_is_damage_whatever_its_digest(
    tmp_path: Path, name: str, place: str
) -> None:
    for epoch in (1, 2):
        save(tmp_path, checkpoint(epoch), best=epoch == 1)
    path = tmp_path / place / "checkpoint.json"
    said = json.loads(path.read_text())
    path.unlink()  # the same file has another name
    path.write_text(record_text({**said, "history": [WRONG_HISTORIES[name]]}))
    told: list[str] = []
    load = load_checkpoint if place != "best" else partial(load_best, epoch=1)
    actual = load(tmp_path, method="m", tell=told.append)
    assert actual is not None
    assert actual.epoch == 1
    assert f"{tmp_path / place} is damaged" in told[0]


def test_a_training_resumed_from_the_one_before_ends_the_same(tmp_path: Path) -> None:
    whole, resumed = small_net(), small_net()
    fit(whole, Method(), small_context(tmp_path))
    flip(tmp_path / "checkpoint" / "epoch-004" / "tensors.safetensors")
    context = small_context(tmp_path, resume=True)
    fit(resumed, Method(), context)
    assert isinstance(context.progress, Recorder)
    assert context.progress.notes[:2] == [
        f"{tmp_path}/checkpoint/epoch-004/tensors.safetensors is damaged: "
        "optimizer/5.weight/momentum_buffer is not what was written; going back to the checkpoint "
        "before it",
        "Continuing after epoch 3.",
    ]
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key])
