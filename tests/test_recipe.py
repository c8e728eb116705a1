from __future__ import annotations

import contextlib
import os
import string
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prunec.errors import RecipeError
from prunec.recipe import (
    Budget,
    DataSpec,
    ModelSpec,
    ModuleEdit,
    ParameterGroup,
    Recipe,
    Schedule,
    Stop,
    Teacher,
    TrainSpec,
    VerifySpec,
    digest,
    dumps,
    json_schema,
    load_recipe,
    loads,
    packaged_recipes,
    packaged_text,
)

MINIMAL = """
name = "small"
[model]
name = "resnet18"
[train]
epochs = 2
[[pass]]
name = "train-dense"
"""

texts = st.text(max_size=12)
floats = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | floats | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=6,
)
options = st.dictionaries(texts, values, max_size=3)
named = st.builds(lambda name, rest: {**rest, "name": name}, st.text(min_size=1), options)
unit = st.floats(0, 1, exclude_max=True)


@st.composite
def data_specs(draw: st.DrawFn) -> DataSpec:
    channels = draw(st.integers(1, 3))
    positive = st.floats(1e-6, 1e6)
    return DataSpec(
        name=draw(st.sampled_from(["embedded", "cifar10", "imagefolder", "webdataset"])),
        root=draw(texts),
        download=draw(st.booleans()),
        augment=tuple(draw(st.lists(named, max_size=2))),
        prepare=tuple(draw(st.lists(named, max_size=2))),
        mean=tuple(draw(st.lists(floats, min_size=channels, max_size=channels))),
        std=tuple(draw(st.lists(positive, min_size=channels, max_size=channels))),
    )


edits = st.builds(ModuleEdit, module=texts, identity=st.just(True)) | st.builds(
    ModuleEdit, module=texts, set=st.dictionaries(texts, values, min_size=1, max_size=2)
)
groups = st.builds(ParameterGroup, match=texts, weight_decay=st.none() | unit)
budgets = st.builds(
    Budget,
    macs_ratio=st.none() | st.floats(0.01, 1),
    bytes=st.none() | st.integers(1, 2**40),
    accuracy_drop=st.none() | st.floats(0, 100),
    latency_ratio=st.none() | st.floats(0.01, 9),
)
recipes = st.builds(
    lambda passes, **keys: Recipe(**keys, **{"pass": tuple(passes)}),
    passes=st.lists(named, min_size=1, max_size=3),
    name=st.text(string.ascii_letters + string.digits, min_size=1, max_size=20),
    description=texts,
    seed=st.integers(0, 2**32 - 1),
    model=st.builds(
        ModelSpec, name=texts, options=options, edit=st.lists(edits, max_size=2).map(tuple)
    ),
    data=data_specs(),
    train=st.builds(
        TrainSpec,
        epochs=st.integers(3, 10**6),
        schedule=st.builds(Schedule, end=unit, per=st.sampled_from(["step", "epoch"]))
        | st.just(Schedule(name="multistep", milestones=(0.25, 0.5)))
        | st.just(Schedule(name="multistep", milestones_epochs=(0.5, 2.0))),
        warmup=st.none() | st.floats(0, 0.9),
        teacher=st.none() | st.builds(Teacher, run=st.just("runs/dense-001"), share=st.just(0.5)),
        stop=st.builds(Stop, patience_epochs=st.none() | st.integers(1, 9))
        | st.builds(Stop, patience=st.floats(0.01, 0.9)),
        channels_last=st.just("auto") | st.booleans(),
        threads=st.just("auto") | st.integers(1, 64),
        group=st.lists(groups, max_size=2).map(tuple),
    ),
    exports=st.integers(9, 25).map(lambda opset: ({"name": "to-onnx", "opset": opset},)),
    verify=st.builds(VerifySpec, budget=budgets, agreement=unit),
)


EXAMPLES = int(os.environ.get("PRUNEC_EXAMPLES", "25"))


@pytest.mark.slow
@given(recipes)
@settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
def test_a_recipe_survives_text(recipe: Recipe) -> None:
    text = dumps(recipe)
    again = loads(text)
    assert again == recipe
    assert dumps(again) == text
    assert digest(again) == digest(recipe)


def test_the_digest_depends_on_values_and_not_on_form() -> None:
    reordered = MINIMAL.replace('name = "small"\n', 'seed = 0\nname = "small"  # a comment\n')
    assert digest(loads(reordered)) == digest(loads(MINIMAL))
    assert digest(loads(reordered.replace("seed = 0", "seed = 1"))) != digest(loads(MINIMAL))


def test_keys_of_a_free_table_have_one_order() -> None:
    one = MINIMAL + "b = 1\na = 2\n"
    two = MINIMAL + "a = 2\nb = 1\n"
    assert dumps(loads(one)) == dumps(loads(two))


@pytest.mark.parametrize("name", packaged_recipes())
def test_packaged_recipes_load_by_every_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe == load_recipe(f"{name}.toml") == loads(packaged_text(name))
    assert recipe.description
    assert packaged_text(name).startswith("# ")


def test_the_recipes_of_the_plan_are_packaged() -> None:
    assert {
        "gdp_mbv2",
        "gdp_resnet20",
        "dense_mbv2",
        "gdp_mbv2_imagenet",
        "gdp_resnet50_imagenet",
        "gdp_resnet56_cifar10",
    } <= set(packaged_recipes())


def test_the_dense_twin_differs_in_its_passes_only() -> None:
    gated, dense = load_recipe("gdp_mbv2"), load_recipe("dense_mbv2")
    assert (gated.model, gated.data, gated.train) == (dense.model, dense.data, dense.train)
    assert gated.seed == dense.seed


def test_a_path_wins_over_a_packaged_name(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gdp_mbv2.toml").write_text(MINIMAL)
    assert load_recipe("gdp_mbv2").name == "small"


def test_integers_stand_for_numbers_and_arrays_for_tuples() -> None:
    recipe = loads(MINIMAL.replace("epochs = 2", "epochs = 2\nlearning_rate = 1"))
    assert isinstance(recipe.train.learning_rate, float)
    assert loads(f"{MINIMAL}[data]\nmean = [0]\nstd = [1]").data.mean == (0.0,)


def test_false_is_no_check() -> None:
    assert loads(MINIMAL).verify.budget.latency_ratio == 1.0
    free = loads(f"{MINIMAL}[verify.budget]\nlatency_ratio = false\nbytes = false")
    assert free.verify.budget.latency_ratio is None
    assert loads(dumps(free)) == free


def test_the_schema_knows_every_table() -> None:
    schema = json_schema()
    assert {"model", "data", "train", "pass", "verify"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("change", "get", "expected"),
    [
        ("train.epochs=3", lambda r: r.train.epochs, 3),
        ("train.learning_rate = 1", lambda r: r.train.learning_rate, 1.0),
        ("name=other", lambda r: r.name, "other"),
        ('name="other"', lambda r: r.name, "other"),
        ("data.root=/a b/c=d", lambda r: r.data.root, "/a b/c=d"),
        ("data.root=2026-01-01", lambda r: r.data.root, "2026-01-01"),
        ("data.mean=[0.1]", lambda r: r.data.mean, (0.1,)),
        ("pass.train-gdp.macs_ratio=0.4", lambda r: r.passes[0]["macs_ratio"], 0.4),
        ("pass.0.macs_ratio=0.4", lambda r: r.passes[0]["macs_ratio"], 0.4),
        ("model.edit.0.module=stem", lambda r: r.model.edit[0].module, "stem"),
        ("data.augment.RandomCrop.size=9", lambda r: r.data.augment[0]["size"], 9),
        ("verify.budget.bytes=7", lambda r: r.verify.budget.bytes, 7),
        ("export.opset=20", lambda r: r.exports[0]["opset"], 20),
    ],
)
def test_set_overrides_any_key(change: str, get: Any, expected: object) -> None:
    assert get(load_recipe("gdp_mbv2", [change])) == expected


def test_overrides_apply_in_order() -> None:
    assert load_recipe("gdp_mbv2", ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("name = ", "f.toml, at its end: not valid TOML: invalid value", "in quotes"),
        ("a = 1\nb = = 2", "f.toml, line 2, column 5: not valid TOML", "in quotes"),
        (MINIMAL.replace("epochs", "epoch"), "unknown key train.epoch. Did you mean 'epochs'?", ""),
        (f"epochs = 2\n{MINIMAL}", "unknown key epochs", "Did you mean 'train.epochs'?"),
        (MINIMAL.replace("[[pass]]", "[[passes]]"), "unknown key passes. Did you mean 'pass'?", ""),
        (
            MINIMAL.replace("= 2", '= "2"'),
            'train.epochs must be a whole number, found the text "2"',
            "",
        ),
        (MINIMAL.replace("= 2", "= 2.5"), "must be a whole number, found the number 2.5", ""),
        (MINIMAL.replace("= 2", "= true"), "must be a whole number, found true", ""),
        (
            MINIMAL.replace("= 2", "= 0"),
            "train.epochs must be at least 1, found the number 0",
            "Give a whole number that is at least 1.",
        ),
        (f"seed = -1\n{MINIMAL}", "seed must be at least 0", "and less than 4294967296."),
        (MINIMAL.replace("= 2", "= nan"), "train holds nan, which is not a finite number", ""),
        (MINIMAL.replace("= 2", "= 2026-01-01"), "train holds a date", ""),
        (
            MINIMAL.replace("= 2", "= [[2]]"),
            "train.epochs must be a whole number, found an array",
            "",
        ),
        (MINIMAL.replace('"small"', '"a/b"'), "name must be a name for a folder", ""),
        (MINIMAL.replace('name = "train-dense"', ""), "pass[0] has no 'name'", ""),
        (MINIMAL.replace("epochs = 2", ""), "train.epochs is missing", "Add 'epochs'"),
        (MINIMAL.replace("[[pass]]", "[x]"), "pass is missing", ""),
        (
            f'{MINIMAL}[data]\nname = "cifar"',
            "data.name must be 'embedded'",
            "Did you mean 'cifar10'?",
        ),
        (
            f"{MINIMAL}[data]\nmean = [1, 2]\nstd = [1, 2, 3]",
            "as many numbers in mean as in std",
            "",
        ),
        (f"{MINIMAL}[data]\nstd = [0]", "data.std[0] must be greater than 0", "greater than 0."),
        (f"{MINIMAL}[data]\nmean = []", "data.mean must have at least one entry", ""),
        (f"{MINIMAL}[data]\naugment = [{{ size = 3 }}]", "data.augment[0] has no 'name'", ""),
        (f"{MINIMAL}[verify.budget]\nmac_ratio = 1", "verify.budget.mac_ratio", "'macs_ratio'"),
        (
            MINIMAL.replace("= 2", "= 2\nwarmup_epochs = 2"),
            "warmup_epochs must be less than epochs",
            "",
        ),
    ],
)
def test_errors_name_file_key_and_remedy(text: str, message: str, remedy: str) -> None:
    with pytest.raises(RecipeError) as caught:
        loads(text, "f.toml")
    assert caught.value.message.startswith("f.toml")
    assert message in caught.value.message
    assert remedy in str(caught.value)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.epochs", "must be KEY=VALUE"),
        ("=3", "must be KEY=VALUE"),
        ("train..epochs=3", "must be KEY=VALUE"),
        ("train.epoch=3", "unknown key train.epoch"),
        ("train.epochs=three", 'found the text "three"'),
        ("train.epochs=[", "the value is not valid TOML"),
        ("train.epochs.x=1", "'x' cannot be set inside the number"),
        ("pass.train-gpd.macs_ratio=1", "there is no entry 'train-gpd'"),
        ("pass.99.name=x", "there is no entry 99"),
        ("data.root=\udcff", "not valid Unicode"),
    ],
)
def test_a_wrong_override_is_named(change: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("gdp_mbv2", [change])
    assert message in caught.value.message
    assert f"--set {change}" in caught.value.message


def test_an_ambiguous_override_asks_for_the_index(tmp_path: Any) -> None:
    path = tmp_path / "twice.toml"
    path.write_text(f'{MINIMAL}[[pass]]\nname = "train-dense"\n')
    with pytest.raises(RecipeError, match="stands at 0, 1"):
        load_recipe(str(path), ["pass.train-dense.x=1"])


def test_an_unknown_recipe_lists_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as caught:
        load_recipe("recipes/gdp_mbv3.toml")
    assert "Did you mean 'gdp_mbv2'?" in caught.value.remedy
    assert "`prunec recipes` lists" in caught.value.remedy


def test_files_that_are_no_text_are_refused(tmp_path: Any) -> None:
    path = tmp_path / "binary.toml"
    path.write_bytes(b"name = '\xff\xfe'")
    with pytest.raises(RecipeError, match="byte 8 is not UTF-8"):
        load_recipe(str(path))


@given(st.text(max_size=300))
@settings(deadline=None, max_examples=100)
def test_any_text_is_a_recipe_or_a_recipe_error(text: str) -> None:
    with contextlib.suppress(RecipeError):
        loads(text)


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 5000, "a = " + "9" * 5000, "a" + ".a" * 3000 + "=1"]
)
def test_monstrous_texts_are_refused(text: str) -> None:
    with pytest.raises(RecipeError):
        loads(text)


def test_options_that_toml_cannot_hold_are_no_recipe() -> None:
    keys = tomllib.loads(MINIMAL)
    for bad in (None, float("inf"), 2**64, {1: 2}, object()):
        keys["pass"] = ({"name": "train-dense", "x": bad},)
        with pytest.raises(ValueError, match=r"pass\.0"):
            Recipe(**{**keys, "model": ModelSpec(name="x"), "train": TrainSpec(epochs=1)})


def test_a_mark_before_the_text_and_windows_ends_of_lines_are_no_mistakes(tmp_path: Path) -> None:
    plain, marked = tmp_path / "plain.toml", tmp_path / "marked.toml"
    plain.write_text(MINIMAL, "utf-8")
    marked.write_bytes(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())
    assert load_recipe(str(marked)) == load_recipe(str(plain))


def test_a_recipe_of_ones_own_is_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(MINIMAL)
    with pytest.raises(RecipeError, match=r"there is no recipe file 'mien\.toml'") as caught:
        load_recipe("mien.toml")
    assert "Did you mean 'mine.toml'?" in caught.value.remedy
