"""Lengths of a training scale with its epochs, and what does not fit is refused by its key."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunec.catalogue import build_passes, pass_classes
from prunec.contract import Training
from prunec.errors import PassError, RecipeError
from prunec.passes.train_acdc import TrainAcdc
from prunec.passes.train_gdp import TrainGdp
from prunec.recipe import Recipe, dumps, load_recipe, loads, packaged_recipes
from prunec.recipe.lengths import share_in_epochs
from prunec.recipe.training import Stop
from prunec.training.phases import SURVIVORS, too_few, too_rare

RECIPE = """
name = "small"
[model]
name = "resnet18"
[train]
epochs = 12
{train}
[[pass]]
name = "{name}"
{options}
"""


def written(name: str = "train-gdp", options: str = "", train: str = "") -> str:
    return RECIPE.format(name=name, options=options.replace(";", "\n"), train=train)


def phases(recipe: Recipe) -> list[dict[str, float]]:
    steps = build_passes(recipe, recipe.name)
    return [dict(s.phases(recipe.train.epochs)) for s in steps if isinstance(s, Training)]


@pytest.mark.parametrize("epochs", [1, 2, 3, 7])
@pytest.mark.parametrize("name", packaged_recipes())
def test_every_packaged_recipe_fits_any_number_of_epochs(name: str, epochs: int) -> None:
    recipe = load_recipe(name, [f"train.epochs={epochs}"])
    assert 0 <= recipe.train.rising < epochs
    milestones = recipe.train.schedule.at_epochs(epochs)
    assert all(0 < milestone < epochs for milestone in milestones)
    for actual in phases(recipe):
        assert all(length >= 0 for length in actual.values())
        assert not actual or sum(actual.values()) == pytest.approx(epochs)
        assert actual.get(SURVIVORS, 1) > 0


AS_THEY_STAND = {
    "gdp_mbv2": (0.5, [3, 3, 6]),
    "gdp_resnet20": (1, [3, 4, 5]),
    "gdp_segmentation": (0.5, [3, 6, 11]),
    "gdp_deeplabv3_voc": (0, [10, 15, 20]),
    "gdp_mbv1_imagenet": (5, [50, 40, 60]),
    "gdp_resnet50_imagenet": (1, [0, 40, 60]),
    "gdp_resnet56_cifar10": (5, [100, 100, 100]),
    "acdc_resnet20": (1, [2, 6, 4]),
    "str_rank_fastgrnn_har": (5, [0, 150, 150]),
}


@pytest.mark.parametrize("name", AS_THEY_STAND)
def test_shares_are_the_whole_epochs_that_they_stand_for(name: str) -> None:
    recipe = load_recipe(name)
    rising, expected = AS_THEY_STAND[name]
    assert recipe.train.rising == pytest.approx(rising, abs=1e-3)
    assert [*phases(recipe)[0].values()] == expected


@given(st.floats(0, 1), st.integers(1, 400))
def test_what_two_shares_leave_is_never_negative(share: float, epochs: int) -> None:
    parts = share_in_epochs(share, epochs), share_in_epochs(1 - share, epochs)
    assert sum(parts) <= epochs + 1e-9
    assert parts[0] == pytest.approx(share * epochs, abs=0.0102)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (written(options="macs_ratio = 0.5;dense = 0.2;dense_epochs = 2;select = 0.1"),
         ("dense", "dense_epochs", "both", "leave one")),
        (written(options="macs_ratio = 0.5;dense = 0.2"), ("select", "select_epochs", "must have")),
        (written(options="macs_ratio = 0.5;dense = 3;select = 0.2"),
         ("pass[0] (train-gdp).dense", "at most 1", "dense_epochs = 3")),
        (written(options="macs_ratio = 0.5;dense_epochs = 9;select_epochs = 6"),
         ("pass[0] (train-gdp): dense_epochs + select_epochs is 15", "only 12", "dense = 0.25",
          "train.epochs")),
        (written(options='macs_ratio = 0.5;dense = "30 %";select = 0.2'),
         ("dense must be a number", "As a share: 0.3")),
        (written(options="macs_ratio = 0.5;dense = 0.9;select = 0.6"),
         ("dense + select is 18", "only 12", "less than 1")),
        (written("train-acdc", "sparsity = 0.9;warmup_epochs = 8;final_epochs = 8"),
         ("warmup_epochs + final_epochs is 16", "only 12", "final = 0.25")),
        (written("train-acdc", "sparsity = 0.9;phase = 0.1;phase_epochs = 1"), ("phase", "both")),
        (written("train-dense", train="warmup_epochs = 12"), ("warmup_epochs", "warmup = 0.05")),
        (written("train-dense", train="warmup = 0.1\nwarmup_epochs = 1"), ("warmup", "both")),
        (written("train-dense", train='schedule = {name = "multistep", milestones = [6, 14]}'),
         ("milestones_epochs = 14", "never reached", "milestones = [0.5")),
        (written("train-dense", train="stop = { patience = 0.1, patience_epochs = 2 }"),
         ("patience", "both")),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_its_key(text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError) as caught:
        build_passes(loads(text, "small.toml"), "small.toml")
    told = str(caught.value)
    assert "small.toml" in told
    for word in words:
        assert word in told, told


def test_epochs_of_earlier_recipes_are_read_as_epochs() -> None:
    text = written("train-dense", train='schedule = {name = "multistep", milestones = [6, 9]}')
    schedule = loads(text).train.schedule
    assert schedule.milestones is None
    assert schedule.at_epochs(12) == (6, 9)
    stop = loads(written("train-dense", train="stop = { patience = 3 }")).train.stop
    assert (stop.patience, stop.patient_epochs(12)) == (None, 3)
    assert Stop(patience=0.25).patient_epochs(12) == 3
    assert Stop(patience=0.25).patient_epochs(1) == 1
    assert Stop().patient_epochs(12) is None


def test_a_recipe_with_shares_survives_text() -> None:
    train = (
        'warmup = 0.1\nschedule = {name = "multistep", milestones = [0.5]}\nstop = {patience = 0.2}'
    )
    recipe = loads(written("train-dense", train=train))
    assert loads(dumps(recipe)) == recipe


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("pass.0.dense_epochs=2", [2, 3, 7]),
        ("pass.train-gdp.select_epochs=1", [3, 1, 8]),
        ("pass.0.dense=0.5", [6, 3, 3]),
    ],
)
def test_set_puts_epochs_in_place_of_a_share(change: str, expected: list[float]) -> None:
    assert [*phases(load_recipe("gdp_mbv2", [change]))[0].values()] == expected
    again = load_recipe("gdp_mbv2", [change, "pass.0.dense=0.25", "pass.0.select=0.25"])
    assert [*phases(again)[0].values()] == [3, 3, 6]


@pytest.mark.parametrize(
    ("name", "changes", "word"),
    [
        ("gdp_mbv2", ["train.epochs=7", "pass.0.dense_epochs=3", "pass.0.select_epochs=4"],
         "no epoch trains"),
        ("gmp_resnet20", ["pass.0.end=1.0"], "no epoch trains"),
        ("st3_resnet20", ["pass.0.end=0.95"], "only 0.6 of 12 epochs train"),
        ("gdp_mbv2", ["train.epochs=1"], "only 0.5 of 1 epochs train"),
        ("gdp_mbv2", ["train.epochs=3"], ""),
        ("acdc_resnet20", ["train.epochs=2"], ""),
        ("rigl_resnet20", ["pass.0.stop=1.0"], ""),
    ],
)  # fmt: skip
def test_too_few_epochs_for_what_is_left_are_reported(
    name: str, changes: list[str], word: str
) -> None:
    recipe = load_recipe(name, changes)
    warning = too_few(phases(recipe)[0], recipe.train.epochs)
    assert bool(word) == bool(warning)
    assert word in warning


def test_a_rhythm_longer_than_the_training_is_reported() -> None:
    options = pass_classes()["train-rigl"](sparsity=0.9, update_steps=50)
    assert too_rare(options, 51) == ()
    [warning] = too_rare(options, 24)
    assert "update_steps = 50, and the training has 24 steps" in warning


@pytest.mark.parametrize("name", packaged_recipes())
def test_no_packaged_recipe_warns_as_it_stands(name: str) -> None:
    recipe = load_recipe(name)
    assert not any(too_few(actual, recipe.train.epochs) for actual in phases(recipe))


def test_every_option_in_epochs_has_its_share() -> None:
    for name, cls in pass_classes().items():
        fields: dict[str, Any] = cls.__dataclass_fields__
        for key in fields:
            if key.endswith("_epochs"):
                assert key.removesuffix("_epochs") in fields, (name, key)
    for table in Recipe.model_json_schema(by_alias=True)["$defs"].values():
        keys = table.get("properties", {})
        # The epochs between two checkpoints are a cost, no length of the training.
        lengths = [k for k in keys if k.endswith("_epochs") and k != "checkpoint_epochs"]
        assert all(key.removesuffix("_epochs") in keys for key in lengths)


def test_python_is_refused_what_a_recipe_is() -> None:
    with pytest.raises(PassError, match="found both"):
        TrainGdp(macs_ratio=0.5, dense=0.1, dense_epochs=1, select=0.1)
    with pytest.raises(PassError, match="must have dense"):
        TrainGdp(macs_ratio=0.5, select=0.1)
    assert TrainAcdc(sparsity=0.9).whole(100) == (10, 5, 15)
