"""The pass and the operator of docs/extending.md, run as they stand."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training.small_training import small_context

from prunec.artifact import Artifact
from prunec.graph.capture import capture
from prunec.graph.channels.analyse import analyse
from prunec.graph.channels.families import FAMILIES, by_name
from prunec.graph.removal.decide import decide
from prunec.graph.rewriting.compile import masked_weights
from prunec.graph.rewriting.rewrite import rewrite
from prunec.passes.compact_masks import CompactMasks
from prunec.passes.remove_channels import RemoveChannels

DOCS = Path(__file__).parents[1] / "docs" / "extending.md"
PASS, _, _, OPERATOR = re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)


def written(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(text, f"{name}.py", "exec"), module.__dict__)
    return module


class Net(nn.Module):
    """An operator in no family between two convolutions; half of its channels are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 4, 3, padding=1)
        with torch.no_grad():
            self.first.weight[4:] = 0
            self.first.bias[4:] = 0

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.second(torch.asinh(self.first(x)))
        return made


@pytest.fixture
def net() -> nn.Module:
    return Net().eval()


EXAMPLE = (torch.randn(2, 3, 8, 8),)


def test_the_pass_runs_and_the_back_end_knows_its_masks(
    net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop = written("drop_tiny", PASS, monkeypatch).DropTiny(threshold=0.05)
    assert drop.pass_name() == "drop-tiny"
    dropped = drop(Artifact(net, EXAMPLE), small_context(tmp_path))
    assert dropped.facts == {"masked"}
    assert all(
        bool((net.get_parameter(n)[~m].abs() < 0.05).all()) for n, m in dropped.masks.items()
    )
    assert any(not bool(mask.all()) for mask in dropped.masks.values())
    compact = CompactMasks()(RemoveChannels()(dropped))
    assert torch.allclose(compact.module(*EXAMPLE), dropped.module(*EXAMPLE), atol=1e-5)


def test_an_operator_in_no_family_keeps_its_channels(net: nn.Module) -> None:
    structure = analyse(capture(net, EXAMPLE))
    assert "asinh at asinh is not understood" in structure.pinned().values()


def test_a_family_is_one_class(net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    family = written("asinh", OPERATOR, monkeypatch).Asinh
    captured = capture(net, EXAMPLE)
    structure = analyse(captured, (*FAMILIES, family))
    wanted = net(*EXAMPLE)
    compact = rewrite(structure, decide(structure, masked_weights(captured, {})))
    assert compact.get_parameter("first.weight").shape[0] == 4
    assert torch.allclose(compact(*EXAMPLE), wanted, atol=1e-5)
    assert torch.allclose(compact(EXAMPLE[0][:1]), wanted[:1], atol=1e-5)


def test_a_name_stands_in_one_family() -> None:
    names = [name for family in FAMILIES for name in family.names]
    assert len(set(names)) == len(names) == len(by_name())
