"""Weights as people have them: names that wrappers lengthened, and values that are no weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from prunec.errors import DataError
from prunec.models.weights import load_weights, named_weights

State = Mapping[str, Tensor]
KERNEL = "stem.0.weight"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.classifier = nn.Linear(4, 2)


def state() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return Net().state_dict()


def loaded(content: object, tmp_path: Path) -> tuple[State, tuple[str, ...]]:
    path = str(tmp_path / "w.pth")
    torch.save(content, path)
    net = Net()
    notes = named_weights(net, "net", path).notes
    load_weights(net, "net", path, 2)
    return net.state_dict(), notes


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda good: {f"{prefix}{key}": value for key, value in good.items()}


def inside(word: str) -> Callable[[State], State]:
    return lambda good: {key.replace("stem.", f"stem.{word}."): v for key, v in good.items()}


TAKEN: dict[str, Callable[[State], State]] = {
    "data parallel of compiled": prefixed("module._orig_mod."),
    "a name of one's own": prefixed("encoder.net."),
    "FSDP": prefixed("_fsdp_wrapped_module."),
    "a part compiled": inside("_orig_mod"),
    "a part checkpointed": inside("_checkpoint_wrapped_module"),
    "a part on several devices": inside("module"),
    "a loss beside it": lambda good: {**prefixed("model.")(good), "loss.weight": torch.ones(2)},
    "ptflops": lambda good: {**good, "stem.0.__flops__": torch.zeros(1)},
    "torchstat": lambda good: {**good, "stem.0.MAdd": torch.zeros(1)},
}


@pytest.mark.parametrize("kind", TAKEN)
def test_what_leaves_no_choice_is_taken(kind: str, tmp_path: Path) -> None:
    good = state()
    actual, _ = loaded(TAKEN[kind](good), tmp_path)
    assert all(torch.equal(actual[key], value) for key, value in good.items())


def test_what_is_left_out_is_reported(tmp_path: Path) -> None:
    _, notes = loaded(TAKEN["a loss beside it"](state()), tmp_path)
    assert any("'model.'" in note for note in notes)
    assert any("loss.weight" in note for note in notes)


def test_two_networks_in_one_file_are_not_chosen_from(tmp_path: Path) -> None:
    both = {**prefixed("student_net.")(state()), **prefixed("teacher_net.")(state())}
    with pytest.raises(DataError, match="do not fit"):
        loaded(both, tmp_path)


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "whole numbers": (lambda w: (100 * w).to(torch.int8), r"int8, torch\.float32 is needed"),
    "truth values": (lambda w: w > 0, "bool"),
    "complex numbers": (lambda w: w.to(torch.complex64), "complex64"),
    "eight bits": (lambda w: w.to(torch.float8_e4m3fn), "float8"),
    "sparse": (lambda w: w.to_sparse(), "is sparse"),
    "meta": (lambda w: w.to("meta"), "meta device"),
    "not a number": (lambda w: w * float("nan"), "not finite"),
    "one infinite": (lambda w: w.index_fill(0, torch.tensor([1]), float("inf")), "not finite"),
    "too large for its type": (lambda w: w.double() * 1e300, "not finite"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_weight_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    spoil, message = REFUSED[kind]
    good = state()
    with pytest.raises(DataError, match=message) as caught:
        loaded({**good, KERNEL: spoil(good[KERNEL])}, tmp_path)
    assert KERNEL in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["sparseThreshold", "threshold", "weight_threshold", "s"])
def test_thresholds_of_other_codes_are_refused_with_what_mends_it(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rf"stem\.0\.{name} looks like the threshold") as caught:
        loaded({**state(), f"stem.0.{name}": torch.full((1, 1), -5.0)}, tmp_path)
    assert "relu(m.weight.abs()" in caught.value.remedy
