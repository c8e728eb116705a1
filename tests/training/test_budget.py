"""Budgets: densities that another run learned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_training import small_context
from torch import nn

from prunec.artifact import Artifact
from prunec.catalogue import build_passes, self_contained
from prunec.cli.selection import new_run, resumed_run
from prunec.errors import PassError, RecipeError, RunError
from prunec.passes.train_gmp import TrainGmp
from prunec.passes.train_str import TrainStr
from prunec.recipe import digest, loads
from prunec.sparsity.densities import load_budget, save_budget
from prunec.sparsity.spread import (
    from_budget,
)
from prunec.store.artifacts import save_artifact
from prunec.store.runs import RunFolder, create_run, run_folders


def test_a_budget_goes_from_one_run_to_another_method(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3))
    artifact = Artifact(net.eval(), (torch.randn(2, 1, 8, 8),))
    recipe = loads(
        'name = "r"\n[model]\nname = "x:y"\n[train]\nepochs = 2\n[[pass]]\nname = "train-str"\n'
    )
    run = create_run(recipe, tmp_path / "runs", ["prunec"])
    with pytest.raises(RunError, match="not trained to its end") as caught:
        save_budget(run, tmp_path / "budget.json")
    assert f"prunec train --resume {run.path}" in caught.value.remedy
    run.mark("trained")
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
     ("[" * 100_000, "cannot be read as a budget"),
     ('{"density": {"a": 2}}', "density.a is 2, a number from 0 to 1"),
     ('{"density": {"a": true}}', "density.a is True, a number from 0 to 1"),
     ('{"density": {"a": NaN}}', "density.a is nan, a number from 0 to 1")],
)  # fmt: skip
def test_a_wrong_budget_is_told(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "budget.json"
    path.write_text(text)
    with pytest.raises(PassError, match=message) as caught:
        load_budget(path)
    assert "prunec budget RUN" in caught.value.remedy


@pytest.mark.parametrize(
    "damage",
    [b"{", b"[" * 100_000, b"\xff", b"[]", b"{}", b'{"history": 1}', b'{"history": [1]}',
     b'{"history": [{"details": {"density": {"a": "much"}}}]}',
     b'{"history": [{"details": {"density": 1}}]}'],
)  # fmt: skip
def test_a_damaged_artifact_is_told(damage: bytes, tmp_path: Path) -> None:
    record = RunFolder(tmp_path).step(0, "train-str") / "artifact.json"
    record.parent.mkdir(parents=True)
    record.write_bytes(damage)
    with pytest.raises(RunError, match=r"artifact\.json is damaged") as caught:
        save_budget(RunFolder(tmp_path), tmp_path / "budget.json")
    assert "another run" in caught.value.remedy


def test_a_budget_of_another_network_is_told() -> None:
    names, shapes = ["a.weight", "b.weight"], [(4, 4), (4, 4)]
    with pytest.raises(PassError, match="the budget has no layer 'b'"):
        from_budget({"a": 0.5}, names, shapes, "x.json")
    more = {"a": 0.5, "b": 0.0, "head.c": 0.5}
    with pytest.raises(PassError, match=r"is for a layer 'head\.c', which the network lacks"):
        from_budget(more, names, shapes, "x.json")
    assert from_budget(more, names, shapes, "x.json", dense=("head.*",)) == [8, 1]


GMP = (
    'name = "r"\n[model]\nname = "x:y"\n[train]\nepochs = 2\n'
    '[[pass]]\nname = "train-gmp"\nsparsity = 0.9\n'
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ('spread = "budget"', "needs a budget"),
        ('budget = "b.json"', 'a budget is given, but spread = "uniform" takes none'),
        ('spread = "budget"\nbudget = { a = 0.5, "b.c" = 1.5 }', r"budget\.b\.c is 1\.5"),
        ('spread = "budget"\nbudget = { a = true }', "must be a number, found true"),
    ],
)
def test_options_that_are_no_budget_are_told(options: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_passes(loads(GMP + options), "r.toml")


def test_granet_ends_at_its_sparsity_not_at_a_budget() -> None:
    text = GMP.replace("gmp", "granet") + 'spread = "budget"\nbudget = "b.json"'
    with pytest.raises(RecipeError, match="spread must be 'uniform', 'er' or 'erk'"):
        build_passes(loads(text), "r.toml")


def test_a_run_holds_the_densities_that_its_recipe_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever becomes of the file; a recipe without a budget stays as it is."""
    monkeypatch.chdir(tmp_path)
    density = {"layer1.0.conv": 0.1, "name": 1 / 3, "fc": 1.0}
    file = tmp_path / "budget.json"
    file.write_text(json.dumps({"density": density}))
    named = tmp_path / "r.toml"
    named.write_text(GMP + 'spread = "budget"\nbudget = "budget.json"')
    run = new_run(str(named), [], tmp_path)
    assert resumed_run(str(named), [], tmp_path) == run
    file.write_text(json.dumps({"density": {**density, "fc": 0.5}}))
    (step,) = build_passes(run.recipe, "r.toml")
    assert isinstance(step, TrainGmp)
    assert step.budget == density
    assert step.counts(["fc.weight", "name", "layer1.0.conv.weight"], [(20,), (9,), (100,)]) == [
        20, 3, 10,
    ]  # fmt: skip
    assert digest(run.recipe) == run.record["digest"]
    with pytest.raises(RunError, match="is not the recipe that"):
        resumed_run(str(named), [], tmp_path)
    file.unlink()
    with pytest.raises(RecipeError, match=r"pass\[0\] \(train-gmp\): budget\.json cannot be read"):
        new_run(str(named), [], tmp_path)
    assert len(run_folders(tmp_path)) == 1
    plain = loads(GMP)
    assert self_contained(plain, "r.toml") == plain
    assert digest(self_contained(plain, "r.toml")) == digest(plain)
