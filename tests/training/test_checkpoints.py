"""Checkpoints of training scripts: every wrapping of one state dict loads to the same network."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from prunec.errors import DataError
from prunec.models.weights import apply_masks, load_weights

State = dict[str, Tensor]


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    blocks = [
        nn.Sequential(nn.Conv2d(ins, outs, 3), nn.BatchNorm2d(outs), nn.ReLU())
        for ins, outs in ((3, 8), (8, 16))
    ]
    parts = {"features": nn.Sequential(*blocks), "classifier": nn.Linear(16, 3)}
    return nn.Sequential(OrderedDict(parts))


def prefixed(prefix: str) -> Callable[[Any], Any]:
    return lambda state: {f"{prefix}{key}": value for key, value in state.items()}


def under(name: str) -> Callable[[Any], Any]:
    return lambda state: {"epoch": 3, name: state}


PREFIXES = ("module.", "_orig_mod.", "model.", "ema_model.")
WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "ema", "state_dict_ema", "teacher")
PLACES = [(f"prefix {p}", prefixed(p)) for p in PREFIXES] + [
    (f"in {w}", under(w)) for w in WRAPPERS
]
STACKS = [(f"{a}, {b}", f, g) for (a, f), (b, g) in itertools.product(PLACES, PLACES)
          if not (b.startswith("prefix") and a.startswith("in"))]  # fmt: skip


def loaded(tmp_path: Path, content: object, model: nn.Module | None = None) -> nn.Module:
    torch.save(content, tmp_path / "w.pth")
    made = model or network(1)
    load_weights(made, "", str(tmp_path / "w.pth"), 3)
    return made


def assert_same(left: nn.Module, right: nn.Module) -> None:
    ours, theirs = left.state_dict(), right.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(("inner", "outer"), [s[1:] for s in STACKS], ids=[s[0] for s in STACKS])
def test_every_stack_of_two_wrappings_loads_the_same(
    tmp_path: Path, inner: Callable[[Any], Any], outer: Callable[[Any], Any]
) -> None:
    good = network()
    assert_same(good, loaded(tmp_path, outer(inner(good.state_dict()))))


def test_counters_and_half_precision(tmp_path: Path) -> None:
    good = network().half().float()
    state = {k: v.half() if v.is_floating_point() else v for k, v in good.state_dict().items()}
    counters = {"total_ops": torch.zeros(1), "features.total_params": torch.zeros(1)}
    assert_same(good, loaded(tmp_path, {**state, **counters, "n_averaged": torch.tensor(3)}))


def test_averages_beside_are_left_and_can_be_named(tmp_path: Path) -> None:
    good, average = network(), network(2)
    optimizer = torch.optim.SGD(good.parameters(), 0.1).state_dict()
    content = {"model": good.state_dict(), "ema": average.state_dict(), "optimizer": optimizer}
    assert_same(good, loaded(tmp_path, content))
    other = network(1)
    load_weights(other, "", f"{tmp_path / 'w.pth'}::ema", 3)
    assert_same(average, other)
    with pytest.raises(DataError, match="has no state dict 'best'"):
        load_weights(other, "", f"{tmp_path / 'w.pth'}::best", 3)


def test_two_trained_networks_are_a_choice_for_the_user(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="several state dicts: 'model', 'net'"):
        loaded(tmp_path, {"model": network().state_dict(), "net": network(2).state_dict()})


def pruned() -> nn.Module:
    made = network()
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            prune.ln_structured(module, "weight", amount=0.3, n=2, dim=0)
    return made


def test_masks_of_torchs_pruning_are_taken_in(tmp_path: Path) -> None:
    masked = pruned()
    saved = {f"module.{key}": value for key, value in masked.state_dict().items()}
    actual = loaded(tmp_path, saved)
    for module in masked.modules():
        if isinstance(module, nn.Conv2d):
            prune.remove(module, "weight")
    assert_same(masked, actual)


@pytest.mark.parametrize("name", ["{}.weight", "{}.weight_mask", "{}", "module.{}.weight"])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_a_file_of_masks_does_as_masks_beside_the_weights(
    tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    masked = pruned()
    masks = {
        name.format(key.removesuffix(".weight_mask")): value.to(dtype)
        for key, value in masked.state_dict().items()
        if key.endswith("_mask")
    }
    torch.save(masks, tmp_path / "masks.pth")
    actual = network()
    apply_masks(actual, str(tmp_path / "masks.pth"))
    assert_same(loaded(tmp_path, masked.state_dict()), actual)


def test_a_mask_that_is_no_mask_is_refused(tmp_path: Path) -> None:
    for content, words in (
        ({"features.0.0.weight": torch.full((8, 3, 3, 3), 0.5)}, "other values than 0 and 1"),
        ({"features.0.0.scale": torch.ones(8)}, "does not belong to a weight"),
    ):
        torch.save(content, tmp_path / "m.pth")
        with pytest.raises(DataError, match=words):
            apply_masks(network(), str(tmp_path / "m.pth"))


@pytest.mark.parametrize(
    "norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm], ids=["old", "new"]
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
def test_weight_norm_is_computed(tmp_path: Path, norm: Callable[[nn.Module], nn.Module]) -> None:
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 3))
    norm(made[0]), norm(made[2])
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 3))
    x = torch.randn(2, 3, 3, 3)
    assert torch.equal(made(x), loaded(tmp_path, made.state_dict(), plain)(x))


def test_keys_left_over_are_refused(tmp_path: Path) -> None:
    state = network().state_dict()
    with pytest.raises(DataError, match=r"unknown more\.weight"):
        loaded(tmp_path, {**state, "more.weight": torch.zeros(1)})
    state.pop("features.0.0.weight")
    with pytest.raises(DataError, match=r"missing features\.0\.0\.weight"):
        loaded(tmp_path, state)
