"""Checkpoints: what is read is what was written, and damage falls back to the one before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_training import Recorder, small_context, small_net

from prunec.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from prunec.training.loop import Method, fit


def checkpoint(epoch: int, method: str = "m") -> Checkpoint:
    return Checkpoint(
        method=method,
        epoch=epoch,
        model={"w": torch.full((2, 3), float(epoch)), "n": torch.tensor(epoch)},
        optimizer={"w": torch.full((2, 3), 0.5)},
        tensors={"a/b": torch.tensor([True, False])},
        history=tuple({"epoch": e + 1} for e in range(epoch)),
        scaler={"scale": 1024.0},
    )


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
    save_checkpoint(tmp_path, checkpoint(3))
    found = load_checkpoint(tmp_path, "m", pytest.fail)
    assert found is not None
    for part in ("model", "optimizer", "tensors"):
        written, read = getattr(checkpoint(3), part), getattr(found, part)
        assert written.keys() == read.keys()
        assert all(torch.equal(read[key], written[key]) for key in written)
    assert (found.epoch, found.history, found.scaler) == (
        3,
        ({"epoch": 1}, {"epoch": 2}, {"epoch": 3}),
        {"scale": 1024.0},
    )


def test_the_last_two_are_kept_in_the_order_of_numbers(tmp_path: Path) -> None:
    for epoch in (998, 999, 1000):
        save_checkpoint(tmp_path, checkpoint(epoch))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch-1000", "epoch-999"]
    found = load_checkpoint(tmp_path, "m", pytest.fail)
    assert found is not None
    assert found.epoch == 1000


def test_another_methods_checkpoints_are_passed_over(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    assert load_checkpoint(tmp_path, "other", pytest.fail) is None
    assert load_checkpoint(tmp_path / "missing", "m", pytest.fail) is None


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_falls_back_to_the_one_before_and_says_so(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    save_checkpoint(tmp_path, checkpoint(2))
    save_checkpoint(tmp_path, checkpoint(3))
    damage(tmp_path / "epoch-003")
    told: list[str] = []
    found = load_checkpoint(tmp_path, "m", told.append)
    assert found is not None
    assert found.epoch == 2
    assert len(told) == 1
    assert "epoch-003" in told[0]
    assert "the checkpoint before it" in told[0]


def test_a_training_resumed_from_the_one_before_ends_the_same(tmp_path: Path) -> None:
    whole, resumed = small_net(), small_net()
    fit(whole, Method(), small_context(tmp_path))
    flip(tmp_path / "checkpoint" / "epoch-004" / "tensors.safetensors")
    context = small_context(tmp_path, resume=True)
    fit(resumed, Method(), context)
    assert isinstance(context.progress, Recorder)
    assert context.progress.notes[:2] == [
        f"{tmp_path}/checkpoint/epoch-004/tensors.safetensors is damaged: its digest is not the "
        "one written down; going back to the checkpoint before it",
        "Continuing after epoch 3.",
    ]
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key])
