"""Budgets: densities that another run learned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_training import small_context
from torch import nn

from prunec.artifact import Artifact
from prunec.catalogue import build_passes
from prunec.errors import PassError, RecipeError, RunError
from prunec.passes.train_gmp import TrainGmp
from prunec.passes.train_str import TrainStr
from prunec.recipe import loads
from prunec.runs import create_run
from prunec.sparsity.budget import load_budget, save_budget
from prunec.sparsity.spread import (
    from_budget,
)
from prunec.storage import save_artifact


def test_a_budget_goes_from_one_run_to_another_method(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3))
    artifact = Artifact(net.eval(), (torch.randn(2, 1, 8, 8),))
    recipe = loads(
        'name = "r"\n[model]\nname = "x:y"\n[train]\nepochs = 2\n[[pass]]\nname = "train-str"\n'
    )
    run = create_run(recipe, tmp_path / "runs", ["prunec"])
    with pytest.raises(RunError, match="no sparse layers"):
        save_budget(run, tmp_path / "budget.json")
    learned = TrainStr(sparsity=0.8, s_init=-6.0)(artifact, small_context(tmp_path / "a", epochs=6))
    save_artifact(learned, run.step(0, "train-str"))
    density = save_budget(run, tmp_path / "budget.json")
    assert load_budget(tmp_path / "budget.json") == density
    follower = TrainGmp(sparsity=0, spread="budget", budget=str(tmp_path / "budget.json"),
                        update_steps=4)  # fmt: skip
    result = follower(artifact, small_context(tmp_path / "b", epochs=6))
    for layer, share in density.items():
        mask = result.masks[f"{layer}.weight"]
        assert int(mask.sum()) == max(1, round(share * mask.numel()))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "cannot be read as a budget"), ("{}", "density is missing"),
     ('{"density": {"a": 2}}', "density.a is 2, a number from 0 to 1")],
)  # fmt: skip
def test_a_wrong_budget_is_told(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "budget.json"
    path.write_text(text)
    with pytest.raises(PassError, match=message) as caught:
        load_budget(path)
    assert "prunec budget RUN" in caught.value.remedy


def test_a_budget_of_another_network_is_told() -> None:
    with pytest.raises(PassError, match="the budget has no layer 'b'"):
        from_budget(json.loads('{"a": 0.5}'), ["a.weight", "b.weight"], [(4, 4), (4, 4)], "x.json")


def test_a_spread_by_budget_wants_a_budget() -> None:

    recipe = loads(
        'name = "r"\n[model]\nname = "x:y"\n[train]\nepochs = 2\n'
        '[[pass]]\nname = "train-gmp"\nsparsity = 0.9\nspread = "budget"\n'
    )
    with pytest.raises(RecipeError, match="needs a budget"):
        build_passes(recipe, "r.toml")
