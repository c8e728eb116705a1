"""Both counters give the same four numbers for every network of the zoo, masked and compiled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from masks import masked
from sampling import slow_case
from torch import Tensor, nn
from zoo import ZOO

import prunec
from prunec.cost.torch_graph import count
from prunec.errors import PassError

UNREAD = {
    "dead-branch",
    "layer-without-its-bias",
}  # holds parameters that nobody reads: a file does not have them
NAMES = sorted(ZOO)


def sparse(module: nn.Module, seed: int) -> nn.Module:
    """A copy with 70 % of every kernel's weights at zero, and whole output channels of some."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for name, p in module.named_parameters():
        if p.dim() > 1:
            masks[name] = torch.rand(p.shape, generator=generator) < 0.3
            masks[name][torch.rand(len(p), generator=generator) < 0.4] = False
    return masked(module, masks)


def assert_agree(
    module: nn.Module, example: tuple[Tensor, ...], path: Path, *, unread: bool = False
) -> None:
    module = module.float().eval()
    example = tuple(x.float() if x.is_floating_point() else x for x in example)
    try:
        prunec.export_onnx(module, example, path)
    except PassError as error:
        pytest.skip(f"cannot be exported: {error.message}")
    ours, theirs = count(module, example), prunec.count_onnx(path)
    assert (ours.macs, ours.nonzero_macs) == (theirs.macs, theirs.nonzero_macs)
    if unread:
        assert ours.params > theirs.params
    else:
        assert (ours.params, ours.nonzero_params) == (theirs.params, theirs.nonzero_params)


CASES = NAMES if os.environ.get("PRUNEC_EXAMPLES") else NAMES[::6]


def marked(number: int, state: str) -> Any:
    """By default every other network is masked or compiled, in turn; the rest is nightly."""
    turn = number % 2 == 0 and ("masked", "compiled")[number // 2 % 2] == state
    case = (CASES[number], state)
    return case if turn and number % 12 < 3 else slow_case(case, nightly=not turn)


BOTH = [marked(i, state) for i in range(len(CASES)) for state in ("masked", "compiled")]


@pytest.mark.parametrize(("name", "state"), BOTH)
def test_the_zoo(name: str, state: str, tmp_path: Path) -> None:
    module, example = ZOO[name]()
    module = sparse(module, 1)
    compiled = state == "compiled"
    if compiled:
        module = prunec.compile(module, example).module
    unread = name in UNREAD and not compiled
    assert_agree(module, example, tmp_path / "net.onnx", unread=unread)
