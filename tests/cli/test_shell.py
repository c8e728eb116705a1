"""The command line without a run: help, completion, lists, first recipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import typer
from fake_pipeline import run
from sampling import sampled

from prunec.cli.commands import app
from prunec.cli.failures import ORDER
from prunec.cli.starter import DATA
from prunec.recipe import DataName, load_recipe, packaged_recipes, packaged_text


def test_help_and_version_need_no_torch() -> None:
    code = (
        "import sys\nfrom prunec.cli.commands import app\nfor line in sys.argv[1:]:\n"
        "    try: app(line.split())\n    except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'numpy', 'tomlkit', 'rich', 'onnx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    lines = ["--help", "train --help", "recipes --help", "--version"]
    done = subprocess.run([sys.executable, "-c", code, *lines], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("train", "export", "verify", "bench", "inspect", "passes", "recipes", "init"):
        assert word in done.stdout


def test_every_command_has_its_place_in_the_help() -> None:
    assert {*ORDER} == {*typer.main.get_command(app).commands}  # type: ignore[attr-defined]


def test_waiting_threads_sleep_unless_the_user_says_otherwise() -> None:
    code = "import os, prunec.cli.commands; print(os.environ['OMP_WAIT_POLICY'])"
    for given, expected in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        kept = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**kept, **given}
        )
        assert done.stdout.strip() == expected


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prunec", "--version"], capture_output=True, text=True
    )
    assert done.stdout.startswith("prunec 0.")


@pytest.mark.parametrize(
    ("words", "index", "expected", "absent"),
    sampled(
        [
            ("prunec train gdp_res", 2, "gdp_resnet20", "gdp_mbv2"),
            ("prunec train sm", 2, "small.toml", "gdp_mbv2"),
            ("prunec recipes show gdp_m", 3, "gdp_mbv2_imagenet", "gdp_resnet20"),
            ("prunec init resnet18 ima", 3, "imagefolder", "cifar10"),
            ("prunec ve", 1, "verify", "train"),
            ("prunec inspect resnet1", 2, "resnet18", "resnet50"),
            ("prunec train gdp_mbv2 --set train.e", 4, "train.epochs=", "train.batch_size"),
            ("prunec train gdp_mbv2 --set pass.", 4, "pass.train-gdp.macs_ratio=", "train.epochs"),
            ("prunec init resnet18 sm", 3, "small/", "small.toml"),
            ("prunec init resnet18 embedded --method ri", 5, "rigl", "gdp"),
            ("prunec passes show train-g", 3, "train-gdp", "train-str"),
        ],
        6,
    ),
)
def test_the_shell_completes(words: str, index: int, expected: str, absent: str) -> None:
    Path("small").mkdir()
    environment = {
        **os.environ,
        "_PRUNEC_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(index),
    }
    code = "from prunec.cli.commands import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert expected in done.stdout
    assert absent not in done.stdout


@pytest.mark.slow
def test_passes_are_listed_from_their_classes() -> None:
    from prunec.catalogue import pass_classes

    result = run("passes")
    assert result.exit_code == 0
    for name, cls in pass_classes().items():
        assert name in result.stdout
        shown = run("passes", "show", name)
        assert shown.exit_code == 0, shown.output
        assert all(fact in shown.stdout for fact in cls.needs | cls.adds)


def test_recipes_are_listed_and_shown() -> None:
    listed = run("recipes")
    assert listed.exit_code == 0, listed.output
    assert all(name in listed.stdout for name in packaged_recipes())
    assert run("recipes", "show", "gdp_mbv2.toml").stdout == packaged_text("gdp_mbv2")
    assert "train" in json.loads(run("recipes", "schema").stdout)["properties"]
    unknown = run("recipes", "show", "gdp_mbv")
    assert unknown.exit_code == 1
    assert "Did you mean 'gdp_mbv2'?" in unknown.stderr


CHANNELS = {
    "embedded": 1, "fashion-mnist": 1, "embedded-segmentation": 1,
    "har": 9, "speech-commands": 32, "speech-commands-12": 32,
}  # fmt: skip


@pytest.mark.parametrize("data", DATA)
def test_init_writes_a_recipe_that_loads(data: str) -> None:
    pytest.importorskip("prunec.models.building")
    result = run("init", "resnet18", data)
    assert result.exit_code == 0, result.output
    path = Path(f"resnet18_{data.replace('-', '_')}.toml")
    recipe = load_recipe(str(path))
    assert recipe.name == path.stem
    assert (recipe.model.name, recipe.data.name) == ("resnet18", data)
    channels = CHANNELS.get(data, 3)
    edits = [{"in_channels": channels}] if channels != 3 else []
    assert [dict(edit.set) for edit in recipe.model.edit] == edits
    assert path.read_text().count("#") > 15


def test_init_knows_every_data_set() -> None:
    assert set(DATA) == set(get_args(DataName)) - {"none"}


def test_init_overwrites_nothing() -> None:
    before = Path("small.toml").read_text()
    result = run("init", "resnet18", "embedded", "-o", "small.toml")
    assert result.exit_code == 1
    assert "small.toml already exists" in result.stderr
    assert Path("small.toml").read_text() == before


def test_init_names_the_nearest_data_set() -> None:
    result = run("init", "resnet18", "cifar")
    assert result.exit_code == 1
    assert "Did you mean 'cifar10'?" in result.stderr
