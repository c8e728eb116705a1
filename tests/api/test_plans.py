"""Plans of removed channels: saved, applied to the network again, refused by another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from api_nets import EXAMPLE, SHARED, small, zeroed
from oracles import fresh_inputs, worst
from sampling import sampled
from torch import Tensor, nn
from zoo import ZOO
from zoo.parts import block

import prunec
from prunec.errors import PrunecError


@pytest.mark.parametrize("name", sampled(SHARED, 4))
def test_a_saved_plan_rebuilds_the_network_without_an_example(name: str, tmp_path: Path) -> None:
    module, example = zeroed(name)
    compiled = prunec.compile(module, example)
    compiled.plan.save(tmp_path / "new" / "plan.json")
    plan = prunec.Plan.load(str(tmp_path / "new" / "plan.json"))
    assert plan == compiled.plan
    rebuilt = plan.apply(ZOO[name]()[0])
    rebuilt.load_state_dict(compiled.module.state_dict())
    assert worst(module, rebuilt, fresh_inputs(example, 3, 2)) < 1e-10


def test_integer_inputs_are_remembered() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.embed(x).mean(1))

    compiled = prunec.compile(Words(), torch.randint(0, 20, (1, 5)))
    rebuilt = prunec.Plan.from_json(compiled.plan.to_json()).apply(Words())
    rebuilt.load_state_dict(compiled.module.state_dict())
    inputs = (torch.randint(0, 20, (4, 5)),)
    assert worst(compiled.module, rebuilt, inputs) == 0


def plan() -> prunec.Plan:
    module = small()
    with torch.no_grad():
        module[1][0].weight[:, 2:5] = 0
    return prunec.compile(module, EXAMPLE).plan


@pytest.mark.parametrize(
    ("fresh", "message"),
    [
        (lambda: small(9), "0.0.weight of shape (8, 3, 3, 3), which here has shape (9, 3, 3, 3)"),
        (lambda: nn.Sequential(block(3, 8), block(8, 12)), "2.2.weight, which this network does"),
        (lambda: nn.Sequential(*small(), nn.Linear(4, 2)), "does not know 3.weight"),
        (lambda: "small", "not a str"),
    ],
)
def test_a_plan_refuses_another_network(fresh: Any, message: str) -> None:
    with pytest.raises(PrunecError) as caught:
        plan().apply(fresh())
    assert message in str(caught.value)


def test_a_plan_refuses_a_network_that_ties_its_channels() -> None:
    class Straight(nn.Module):
        tied = False

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(6, 6) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x)
            g = self.b(h)
            return self.c(g + h if self.tied else g)

    class Tied(Straight):
        tied = True

    module = Straight()
    with torch.no_grad():
        module.c.weight[:, 2] = 0
    made = prunec.compile(module, torch.zeros(2, 6)).plan
    assert made.removed
    with pytest.raises(PrunecError, match="ties together"):
        made.apply(Tied())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ("{", "Not a channel plan"),
        ("[]", "Not a channel plan"),
        ('{"format": 1}', "has format 1, this prunec reads"),
        ('{"format": 3}', "Not a channel plan"),
        (b"\xff\xfe\x00", "it is not text"),
    ],
)
def test_a_file_that_is_no_plan_is_named(
    text: str | bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PrunecError) as caught:
        prunec.Plan.load(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
    assert caught.value.remedy
