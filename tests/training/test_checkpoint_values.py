"""Weights as people have them: names that wrappers lengthened, and values that are no weights."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm

from prunec.errors import DataError
from prunec.models.weights import apply_masks, load_weights, named_weights

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
    "a pruned network beside a loss": lambda good: {
        **prefixed("model.")({f"{k}_orig" if k == KERNEL else k: v for k, v in good.items()}),
        f"model.{KERNEL}_mask": torch.ones_like(good[KERNEL]),
        "loss.weight": torch.ones(2),
    },
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


def test_arguments_of_a_script_beside_the_weights_are_no_obstacle(tmp_path: Path) -> None:
    good = state()
    actual, _ = loaded({"model": good, "args": argparse.Namespace(lr=0.1)}, tmp_path)
    assert torch.equal(actual[KERNEL], good[KERNEL])


def test_arrays_of_numpy_are_taken_and_never_unpickled(tmp_path: Path) -> None:
    good = {key: value.numpy() for key, value in state().items()}
    np.savez(tmp_path / "w.npz", **good)
    net = Net()
    load_weights(net, "net", str(tmp_path / "w.npz"), 2)
    np.testing.assert_array_equal(net.state_dict()[KERNEL].numpy(), good[KERNEL])
    np.savez(tmp_path / "w.npz", **good, more=np.array([print], object))
    with pytest.raises(DataError, match="of another kind"):
        load_weights(net, "net", str(tmp_path / "w.npz"), 2)


@pytest.mark.parametrize("parametrise", [spectral_norm, parametrizations.spectral_norm])
def test_a_weight_that_is_stored_as_others_is_refused(
    parametrise: Callable[[nn.Module], nn.Module], tmp_path: Path
) -> None:
    net = Net()
    parametrise(net.stem[0])
    with pytest.raises(
        DataError, match=r"stem\.0\.weight is stored as a parametrisation"
    ) as caught:
        loaded(net.state_dict(), tmp_path)
    assert "remove_parametrizations" in caught.value.remedy


def test_a_file_of_another_ending_is_told_which_are_read(tmp_path: Path) -> None:
    (tmp_path / "w.h5").touch()
    with pytest.raises(DataError, match="is not a file of weights") as caught:
        load_weights(Net(), "net", str(tmp_path / "w.h5"), 2)
    assert ".safetensors" in caught.value.remedy


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"masks": {"stem.0": torch.tensor([1, 0, 1, 0]).reshape(4, 1, 1, 1)}}, ""),
        ({KERNEL: torch.tensor([1, 0, 1, 0])}, r"is \(4,\), \(4, 3, 3, 3\) is needed"),
        ({KERNEL: torch.ones(4, 3, 3, 3).to_sparse()}, f"mask {KERNEL} is sparse"),
        ({KERNEL: torch.full((4, 3, 3, 3), 0.5)}, "model.masks: the mask"),
        ([torch.ones(4)], "model.masks: the file has no masks"),
    ],
)
def test_masks_of_their_own(content: object, said: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "m.pth")
    net = Net()
    if said:
        with pytest.raises(DataError, match=said):
            apply_masks(net, str(tmp_path / "m.pth"))
        return
    apply_masks(net, str(tmp_path / "m.pth"))
    assert net.state_dict()[KERNEL].flatten(1).any(1).tolist() == [True, False, True, False]


@pytest.mark.parametrize("name", ["sparseThreshold", "threshold", "weight_threshold", "s"])
def test_thresholds_of_other_codes_are_refused_with_what_mends_it(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rf"stem\.0\.{name} looks like the threshold") as caught:
        loaded({**state(), f"stem.0.{name}": torch.full((1, 1), -5.0)}, tmp_path)
    assert "relu(m.weight.abs()" in caught.value.remedy
