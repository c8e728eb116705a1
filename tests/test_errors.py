from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from prunec import errors
from prunec.cli.commands import app
from prunec.recipe import loads
from prunec.store.new_runs import create_run
from prunec.store.records import record_text

RECIPE = """
name = "small"
[model]
name = "resnet18"
[train]
epochs = 2
[[pass]]
name = "train-dense"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRUNEC_RUNS", raising=False)
    return tmp_path


def classes() -> list[type[errors.PrunecError]]:
    actual = inspect.getmembers(errors, inspect.isclass)
    return [cls for _, cls in actual if issubclass(cls, errors.PrunecError)]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    for cls in classes():
        assert cls.__name__ in (errors.__doc__ or "")
        assert cls.__doc__


def test_only_a_failed_gate_exits_with_two_and_only_a_wrong_line_with_three() -> None:
    others = {cls.__name__: cls.exit_code for cls in classes() if cls.exit_code != 1}
    assert others == {"ParityError": 2, "UsageError": 3}


def test_an_error_is_message_and_remedy() -> None:
    error = errors.DataError("no labels", remedy="Put them there.")
    assert str(error) == "no labels\nPut them there."
    assert str(errors.DataError("no labels")) == "no labels"


MISTAKES = [
    (["train", "gdp_mbv"], "", "there is no recipe file 'gdp_mbv'", "Did you mean 'gdp_mbv2'?"),
    (["train", "a.toml"], "x", "a.toml, at its end: not valid TOML", "Put text in quotes"),
    (["train", "a.toml"], RECIPE + "epoch = 1", "unknown key pass[0] (train-dense).epoch", ""),
    (["train", "a.toml"], RECIPE.replace("= 2", "= -1"), "train.epochs must be at least 1", ""),
    (
        ["train", "a.toml", "--set", "train.epoch=3"],
        RECIPE,
        "a.toml with --set train.epoch=3: unknown key train.epoch",
        "Did you mean 'epochs'?",
    ),
    (
        ["train", "a.toml"],
        RECIPE.replace("train-dense", "absorb-gates"),
        "pass[0] (absorb-gates) needs",
        "Put train-gdp before absorb-gates.",
    ),
    (["train", "--resume"], "", "there is no run in runs", "Train one first: prunec train"),
    (["train", "--resume", "a.toml"], RECIPE, "no run of the recipe 'small'", "prunec train small"),
    (["export"], "", "there is no run in runs", "prunec train"),
    (["export", "nothing"], "", "there is no run nothing", "prunec train"),
    (["export", "."], "", ". is not a run folder", "prunec train"),
    (["verify", "--runs", "elsewhere"], "", "there is no run in elsewhere", "prunec train"),
    (["bench"], "", "there is no run in runs", "prunec train"),
    (["inspect"], "", "there is no run in runs", "prunec train"),
    (["recipes", "show", "x"], "", "there is no recipe file 'x'", "`prunec recipes` lists"),
    (
        ["init", "resnet18", "mnist"],
        "",
        "there is no data set and no folder 'mnist'",
        "one of: embedded",
    ),
]


@pytest.mark.parametrize(("arguments", "text", "message", "remedy"), MISTAKES)
def test_a_mistake_gets_a_message_a_remedy_and_exit_one(
    arguments: list[str], text: str, message: str, remedy: str
) -> None:
    Path("a.toml").write_text(text)
    failed(arguments, message, remedy)


def failed(arguments: list[str], message: str, remedy: str, code: int = 1) -> None:
    result: Any = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert message in result.stderr
    assert remedy in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


@pytest.mark.parametrize("command", ["export", "verify", "bench", "inspect"])
def test_a_run_of_another_version_is_refused(command: str) -> None:
    run = create_run(loads(RECIPE), Path("runs"))
    path = run.path / "run.json"
    path.write_text(record_text({**run.record, "prunec": "77.0.0"}))
    failed([command], "was written by prunec 77.0.0", "git checkout v77.0.0")


def test_a_training_of_no_recipe_is_a_wrong_line() -> None:
    failed(["train"], "prunec train needs a recipe", "`prunec recipes` lists", code=3)


def test_a_root_that_cannot_be_written_is_explained() -> None:
    Path("a.toml").write_text(RECIPE)
    Path("runs").write_text("a file stands here")
    failed(["train", "a.toml"], "no run folder can be created in runs", "--runs DIR")


def test_an_output_that_cannot_be_written_is_explained() -> None:
    pytest.importorskip("prunec.models.building")
    Path("file").write_text("")
    failed(["init", "resnet18", "cifar10", "-o", "file/a.toml"], "file/a.toml", "")
