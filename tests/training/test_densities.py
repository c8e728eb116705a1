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
from prunec.cli.selection import resumed_run, trainable
from prunec.errors import PassError, RecipeError, RunError
from prunec.passes.train_gmp import TrainGmp
from prunec.passes.train_str import TrainStr
from prunec.recipe import digest, loads
from prunec.sparsity.densities import load_densities, save_densities
from prunec.sparsity.spread import (
    from_densities,
)
from prunec.store.artifacts import save_artifact
from prunec.store.new_runs import create_run
from prunec.store.runs import RunFolder


def test_densities_go_from_one_run_to_another_method(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3))
    artifact = Artifact(net.eval(), (torch.randn(2, 1, 8, 8),))
    recipe = loads(
        'name = "r"\n[model]\nname = "x:y"\n[train]\nepochs = 2\n[[pass]]\nname = "train-str"\n'
    )
    run = create_run(recipe, tmp_path / "runs", ["prunec"])
    with pytest.raises(RunError, match="not fully trained") as caught:
        save_densities(run, tmp_path / "densities.json")
    assert f"prunec train --resume {run.path}" in caught.value.remedy
    run.mark("trained")
    with pytest.raises(RunError, match="no sparse layers"):
        save_densities(run, tmp_path / "densities.json")
    learned = TrainStr(sparsity=0.8, s_init=-6.0)(artifact, small_context(tmp_path / "a", epochs=6))
    save_artifact(learned, run.step(0, "train-str"))
    density = save_densities(run, tmp_path / "densities.json")
    assert load_densities(tmp_path / "densities.json") == density
    follower = TrainGmp(sparsity=0, spread="densities", densities=str(tmp_path / "densities.json"),
                        update_steps=4)  # fmt: skip
    result = follower(artifact, small_context(tmp_path / "b", epochs=6))
    for layer, share in density.items():
        mask = result.masks[f"{layer}.weight"]
        assert int(mask.sum()) == max(1, round(share * mask.numel()))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "cannot be read as densities"), ("{}", "density is missing"),
     ("[" * 100_000, "cannot be read as densities"),
     ('{"density": {"a": 2}}', "density.a is 2, not a number from 0 to 1"),
     ('{"density": {"a": true}}', "density.a is True, not a number from 0 to 1"),
     ('{"density": {"a": NaN}}', "density.a is nan, not a number from 0 to 1")],
)  # fmt: skip
def test_wrong_densities_are_reported(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "densities.json"
    path.write_text(text)
    with pytest.raises(PassError, match=message) as caught:
        load_densities(path)
    assert "prunec densities RUN" in caught.value.remedy


@pytest.mark.parametrize(
    "damage",
    [b"{", b"[" * 100_000, b"\xff", b"[]", b"{}", b'{"history": 1}', b'{"history": [1]}',
     b'{"history": [{"details": {"density": {"a": "much"}}}]}',
     b'{"history": [{"details": {"density": 1}}]}'],
)  # fmt: skip
def test_a_damaged_artifact_is_reported(damage: bytes, tmp_path: Path) -> None:
    record = RunFolder(tmp_path).step(0, "train-str") / "artifact.json"
    record.parent.mkdir(parents=True)
    record.write_bytes(damage)
    with pytest.raises(RunError, match=r"artifact\.json is damaged") as caught:
        save_densities(RunFolder(tmp_path), tmp_path / "densities.json")
    assert "another run" in caught.value.remedy


def test_densities_of_another_network_are_reported() -> None:
    names, shapes = ["a.weight", "b.weight"], [(4, 4), (4, 4)]
    with pytest.raises(PassError, match="the densities have no layer 'b'"):
        from_densities({"a": 0.5}, names, shapes, "x.json")
    more = {"a": 0.5, "b": 0.0, "head.c": 0.5}
    with pytest.raises(PassError, match=r"are for a layer 'head\.c', which the network lacks"):
        from_densities(more, names, shapes, "x.json")
    assert from_densities(more, names, shapes, "x.json", dense=("head.*",)) == [8, 1]


GMP = (
    'name = "r"\n[model]\nname = "x:y"\n[train]\nepochs = 2\n'
    '[[pass]]\nname = "train-gmp"\nsparsity = 0.9\n'
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ('spread = "densities"', "needs densities"),
        ('densities = "b.json"', 'densities are given, but spread = "uniform" takes none'),
        ('spread = "densities"\ndensities = { a = 0.5, "b.c" = 1.5 }', r"densities\.b\.c is 1\.5"),
        ('spread = "densities"\ndensities = { a = true }', "must be a number, found true"),
    ],
)
def test_options_that_are_no_densities_are_reported(options: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_passes(loads(GMP + options), "r.toml")


def test_granet_ends_at_its_sparsity_not_at_densities() -> None:
    text = GMP.replace("gmp", "granet") + 'spread = "densities"\ndensities = "b.json"'
    with pytest.raises(RecipeError, match="spread must be 'uniform', 'er' or 'erk'"):
        build_passes(loads(text), "r.toml")


def test_a_run_holds_the_densities_that_its_recipe_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever becomes of the file; a recipe without densities stays as it is."""
    monkeypatch.chdir(tmp_path)
    density = {"layer1.0.conv": 0.1, "name": 1 / 3, "fc": 1.0}
    file = tmp_path / "densities.json"
    file.write_text(json.dumps({"density": density}))
    named = tmp_path / "r.toml"
    named.write_text(GMP + 'spread = "densities"\ndensities = "densities.json"')
    run = create_run(trainable(str(named), [])[0], tmp_path)
    assert resumed_run(str(named), [], tmp_path) == run
    file.write_text(json.dumps({"density": {**density, "fc": 0.5}}))
    (step,) = build_passes(run.recipe, "r.toml")
    assert isinstance(step, TrainGmp)
    assert step.densities == density
    assert step.counts(["fc.weight", "name", "layer1.0.conv.weight"], [(20,), (9,), (100,)]) == [
        20, 3, 10,
    ]  # fmt: skip
    assert digest(run.recipe) == run.record["digest"]
    with pytest.raises(RunError, match="is not the recipe that"):
        resumed_run(str(named), [], tmp_path)
    file.unlink()
    with pytest.raises(
        RecipeError, match=r"pass\[0\] \(train-gmp\): densities\.json cannot be read"
    ):
        trainable(str(named), [])
    plain = loads(GMP)
    assert self_contained(plain, "r.toml") == plain
    assert digest(self_contained(plain, "r.toml")) == digest(plain)
