"""Exit codes: 0 done, 1 an error, 2 a check failed, 3 a wrong command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from fake_pipeline import run

from prunec.cli.commands import app
from prunec.errors import PrunecError

VERDICTS = ("compact", "compare", "compile", "data check", "export", "verify")


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words that name it."""
    for name in getattr(command, "commands", ()):
        yield from leaves(command.commands[name], (*path, name))
    if path and not getattr(command, "no_args_is_help", False):
        yield path, command


COMMANDS = dict(leaves(typer.main.get_command(app)))


def ended_in_three(*words: str) -> str:
    done = run(*words)
    assert done.exit_code == 3, (words, done.output)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return str(done.stderr)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_a_line_that_does_not_parse_ends_in_three_and_names_the_command(
    path: tuple[str, ...],
) -> None:
    command = " ".join(path)
    assert f"{command} has no option --jsno" in ended_in_three(*path, "--jsno")
    for parameter in COMMANDS[path].params:
        if parameter.param_type_name == "option" and not parameter.is_flag:
            said = ended_in_three(*path, parameter.opts[0])
            assert f"{command}: option" in said
            assert parameter.opts[0] in said.partition("remedy: ")[2]
    if any(p.required for p in COMMANDS[path].params if p.param_type_name == "argument"):
        assert f"{command}: missing argument" in ended_in_three(*path)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["data"],
        ["train"],
        ["exprot"],
        ["runs", "dif"],
        ["train", "small.toml", "--set", "epochs"],
        ["train", "small.toml", "--set", "=3"],
        ["inspect", "resnet18", "--input", "3x"],
        ["compile", "resnet18", "--input", "3x"],
        ["compile", "resnet18", "--round-to", "0"],
        ["compile", "resnet18", "--round-to", "fast"],
        ["verify", "run", "--runner", "qemu-arch64"],
        ["export", "run", "--with-preprocessing", "nwhc"],
        ["compare", "small.toml", "--sparsity", "most"],
        ["compare", "small.toml", "--seeds", "0"],
        ["bench", "a.onnx"],
        ["bench", "a.onnx", "b.onnx", "--threads", "two"],
        ["passes", "show"],
    ],
    ids=" ".join,
)
def test_a_value_or_a_command_that_there_is_not_ends_in_three(words: list[str]) -> None:
    assert run(*words).exit_code == 3


@pytest.mark.parametrize(
    "words",
    [
        ["train", "nowhere.toml"],
        ["train", "small.toml", "--set", "train.epochs=many"],
        ["export", "nothing"],
        ["verify", "nothing.zip"],
        ["count", "nothing.onnx"],
        ["bench", "a.onnx", "b.onnx"],
        ["passes", "show", "train-everything"],
    ],
    ids=" ".join,
)
def test_a_wrong_file_or_value_ends_in_one(words: list[str]) -> None:
    done = run(*words)
    assert done.exit_code == PrunecError.exit_code == 1, done.output


@pytest.mark.parametrize("name", VERDICTS)
def test_commands_with_a_verdict_take_json(name: str) -> None:
    known = {option for parameter in COMMANDS[tuple(name.split())].params for option in
             parameter.opts}  # fmt: skip
    assert "--json" in known


def test_the_help_says_what_the_codes_mean() -> None:
    said = " ".join(run("-h").stdout.split())
    assert "Exit codes: 0 done" in said
    assert "3 a wrong command line" in said


def test_a_comparison_with_an_unproven_cell_ends_in_two(monkeypatch: pytest.MonkeyPatch) -> None:
    from prunec.comparison import compare
    from prunec.comparison.results import Result

    cells = [Result("small", None, 0, "done", True), Result("small", None, 1, "failed", False)]
    monkeypatch.setattr(compare, "compare", lambda *_, **__: tuple(cells))
    done = run("compare", "small.toml", "--seeds", "2", "--json")
    assert done.exit_code == 2, done.output
    said = json.loads(done.stdout)
    assert said["passed"] is False
    assert [cell["proven"] for cell in said["results"]] == [True, False]
    cells.pop()
    assert run("compare", "small.toml", "--seeds", "1").exit_code == 0
