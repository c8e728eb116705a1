"""Screens at 80, 100 and 120 columns: no word is cut, no line is wider than the terminal."""

from __future__ import annotations

import io
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.text import Text
from typer.testing import CliRunner

from prunec import catalogue
from prunec.artifact import Step
from prunec.cli import listings
from prunec.cli.arguments import in_a_folder
from prunec.cli.commands import app
from prunec.cli.explained import explained, options_table
from prunec.comparison.results import Row
from prunec.comparison.tables import cells_of, columns_of, to_rich
from prunec.cost import Cost, LayerCost
from prunec.deploy.checks import Check, Report, render
from prunec.processes import available_cores, workers_here
from prunec.recipe import load_recipe, packaged_recipes
from prunec.tables import FittedTable, listing, table
from prunec.training import progress as progress_module
from prunec.training.progress import epoch_line, make_progress
from prunec.wording import edits, nearest

WIDTHS = (80, 100, 120)
wide = pytest.mark.parametrize("width", WIDTHS)
LONGEST = max(packaged_recipes(), key=len)


def printed(width: int, *parts: RenderableType, terminal: bool = False) -> str:
    """Output of a console of a width, the length of its lines checked."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, color_system=None)
    console.print(*parts, sep="\n")
    text = out.getvalue()
    assert max(map(cell_len, text.splitlines())) <= width
    return text


def require_words(text: str, cells: Iterable[RenderableType]) -> None:
    """Every word of every cell stands in the text as a whole."""
    shown = set(re.sub("[│┃,]", " ", text).split())
    for cell in cells:
        words = (cell.plain if isinstance(cell, Text) else str(cell)).replace(",", " ").split()
        assert shown.issuperset(words), sorted(set(words) - shown)


def cells(made: FittedTable) -> list[RenderableType]:
    return [cell for column in made.columns for cell in column.cells]


def words(source: random.Random, longest: int, most: int) -> str:
    return " ".join("x" * source.randint(1, longest) for _ in range(source.randint(0, most)))


@pytest.mark.parametrize("seed", range(40))
def test_whatever_stands_in_a_table_stands_there_whole(seed: int) -> None:
    source = random.Random(seed)
    names = [f"column{k}" for k in range(source.randint(1, 7))]
    numbers = [name for name in names[1:] if source.random() < 0.5]
    make = (lambda: table("A title", *names, numbers=numbers)) if seed % 2 else (
        lambda: listing(*names, numbers=numbers)
    )  # fmt: skip
    made = make()
    for _ in range(source.randint(1, 5)):
        made.add_row("r" * source.randint(1, 40), *(words(source, 30, 5) for _ in names[1:]))
    for width in WIDTHS:
        require_words(printed(width, made), cells(made))


def test_cells_are_no_markup() -> None:
    made = table("", "name")
    made.add_row("layer[0]")
    made.add_row("[bold]x[/bold]")
    assert "[bold]x[/bold]" in printed(80, made)


@wide
def test_recipes(width: int) -> None:
    made = listings.recipes_table(map(load_recipe, packaged_recipes()))
    text = printed(width, made)
    require_words(text, cells(made))
    assert [line.split()[0] for line in text.splitlines() if line[0] != " "] == [
        "recipe", *packaged_recipes(),
    ]  # fmt: skip


@wide
def test_passes_take_a_line_each(width: int) -> None:
    text = printed(width, listings.passes_table(catalogue.pass_classes()))
    assert [line.split()[0] for line in text.splitlines()] == ["pass", *catalogue.pass_names()]


@wide
def test_a_pass_is_explained(width: int) -> None:
    for name, cls in catalogue.pass_classes().items():
        schema = catalogue.pass_options(name)
        text = printed(width, *explained(cls, schema, packaged_recipes()))
        require_words(text, packaged_recipes()[:-1:2])
        if not schema.get("properties"):
            assert "It takes no options." in text
            continue
        made = options_table(schema)
        require_words(text, cells(made))
        assert all(str(cell).strip() for column in made.columns for cell in column.cells), name
        assert "typing." not in text


def test_every_method_names_its_paper() -> None:
    without = {"train-dense", "train-two-of-four"}
    for name in catalogue.pass_names():
        if name.startswith("train-") and name not in without:
            cls = catalogue.pass_class(name)
            text = printed(120, *explained(cls, catalogue.pass_options(name), ()))
            assert any(f"20{year}" in text for year in range(17, 27)), name


def test_ranges_and_choices_are_in_plain_words() -> None:
    text = " ".join(printed(120, options_table(catalogue.pass_options("train-gdp"))).split())
    assert "number, greater than 0, less than 1" in text
    assert "whole number, at least 1" in text
    spread = printed(120, options_table(catalogue.pass_options("train-rigl")))
    assert 'one of "uniform", "er", "erk", "densities"' in spread


@wide
def test_what_training_did(width: int) -> None:
    macs, params = (1_123_324_384, 551_653_672), (15_715_722, 9_329_754)
    note = "removed 2336 of 4640 channels in 12 of 14 groups"
    step = Step("train-two-of-four", {}, (), macs, params, 1e-7, 12345.6, "", (note,))
    made = listings.steps_table(f"{LONGEST}-001", [step])
    require_words(printed(width, made), cells(made))


@wide
def test_costs_and_checks(width: int) -> None:
    layer = LayerCost(
        "features.denseblock4.denselayer32.conv2", "scaled_dot_product_attention",
        115_605_504, 115_605_504, 36_864_000, 36_864_000,
    )  # fmt: skip
    made = Cost((layer,), 36_864_000, 36_864_000).table(f"{LONGEST}-001")
    require_words(printed(width, made), cells(made))
    out = io.StringIO()
    checks = tuple(
        Check(name, "3,324,384 → 1,653,672 MACs", "3,324,384 → 1,653,672 MACs", None, True)
        for name in ("budget: latency / dense", "MACs in metadata")
    )
    render(Report(checks), Console(file=out, width=width))
    assert max(map(len, out.getvalue().splitlines())) <= width
    require_words(out.getvalue(), [cell for c in checks for cell in (c.name, str(c.found))])


def every_help() -> Iterator[tuple[str, str]]:
    """Each command with its help, as ``-h`` prints it at this terminal's width."""
    left = [""]
    while left:
        path = left.pop()
        done = CliRunner().invoke(app, [*path.split(), "-h"])
        assert done.exit_code == 0, (path, done.output)
        yield path, done.stdout
        listed = done.stdout.partition("Commands:")[2].partition("\n\n")[0]
        left += [f"{path} {line.split()[0]}" for line in listed.splitlines() if line[:3].strip()]


@wide
def test_every_help_has_room(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    seen = {}
    for path, text in every_help():
        seen[path.strip()] = text
        assert max(map(len, text.splitlines())) <= width, path
        assert "..." not in text.replace("[ARGS]...", ""), path
        assert not re.search(r"<\w|[{}]", text), path
        for name in re.findall(r"--?[a-z][a-z-]* (\S+)  ", text):
            assert re.fullmatch(r"[A-Z,=…]+", name), (path, name)
    assert {"train", "init", "passes show", "recipes show", "data check", "runs diff"} <= set(seen)
    command = "torchrun --nproc-per-node N -m prunec train RECIPE"
    assert command in seen["train"]


@pytest.mark.parametrize(
    ("words", "near", "code"),
    [
        (["trian"], "train", 3),
        (["pases"], "passes", 3),
        (["recipes", "shwo"], "show", 3),
        (["data", "chekc"], "check", 3),
        (["passes", "show", "train-gpd"], "train-gdp", 1),
        (["passes", "show", "Train_GDP"], "train-gdp", 1),
        (["recipes", "show", "gdp_mvb2"], "gdp_mbv2", 1),
        (["train", "gdp_mbv2", "--set", "train.eopchs=3"], "epochs", 1),
        (["inspect", "resnet81"], "resnet18", 1),
        (["init", "resnet18", "embeded"], "embedded", 1),
        (["init", "resnet18", "embedded", "--method", "gpd"], "gdp", 1),
        (["init", "resnet18", "embedded", "--ephocs", "3"], "--epochs", 3),
        (["export", "--onxn"], "--onnx", 3),
        (["--versoin"], "--version", 3),
        (["train", "gdp_mbv2", "--resmue"], "--resume", 3),
        (["train", "gdp_mbv2", "--epochs", "3"], "--set train.epochs=…", 3),
        (["compare", "gdp_mbv2", "--bacth-size", "3"], "--set train.batch_size=…", 3),
        (["train", "gdp_mbv2", "--seed", "3"], "--set seed=…", 3),
    ],
)
def test_a_slip_of_the_keyboard_is_recognised(words: list[str], near: str, code: int) -> None:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == code
    assert f"Did you mean {near!r}?" in done.stderr


@pytest.mark.parametrize(
    ("words", "actual"),
    [
        (["init", "resnet18"], "prunec init: missing argument 'DATA'"),
        (["train", "gdp_mbv2", "--device", "gpu"], "'gpu' is not one of 'auto', 'cpu', 'cuda'"),
        (["compare", "--sparsity"], "prunec compare: option '--sparsity' requires an argument"),
        (["verify", "one", "two"], "unexpected extra argument"),
        (["init", "a", "b", "--budget", "200%"], "'--budget': it must be a number"),
        (["init", "a", "b", "--budget", "2"], "'--budget': it must be at most 0.999"),
        (["init", "a", "b", "--epochs", "0"], "'--epochs': it must be at least 1"),
        (["--no-such-thing"], "prunec has no option --no-such-thing"),
    ],
)
def test_a_wrong_command_line_is_no_failed_gate(words: list[str], actual: str) -> None:
    done = CliRunner().invoke(app, words, prog_name="prunec")
    assert done.exit_code == 3
    assert done.stderr.startswith("error: prunec")
    assert actual in done.stderr
    assert "-h` shows what it takes." in done.stderr


@pytest.mark.parametrize(
    ("one", "other", "slips"),
    [("", "", 0), ("gpd", "gdp", 1), ("abc", "ab", 1), ("ab", "abc", 1), ("abc", "axc", 1),
     ("kitten", "sitting", 3), ("ca", "abc", 3)],
)  # fmt: skip
def test_slips_are_counted(one: str, other: str, slips: int) -> None:
    assert edits(one, other) == edits(other, one) == slips


def test_what_has_nothing_in_common_is_not_meant() -> None:
    assert nearest("xyzzy", catalogue.pass_names()) == ""
    for name in catalogue.pass_names():
        for k in range(1, len(name) - 1):
            swapped = name[:k] + name[k + 1] + name[k] + name[k + 2 :]
            assert edits(swapped, nearest(swapped, catalogue.pass_names())) <= 1


@pytest.mark.parametrize(
    "words",
    [
        ["init", "resnet18", "embedded", "-o", "nowhere/there/x.toml"],
        ["densities", "-o", "nowhere/x.json"],
        ["export", "-o", "nowhere/model.onnx"],
        ["compile", "resnet18", "-o", "nowhere/there/run"],
        ["compare", "gdp_mbv2", "-o", "nowhere/there/comparison"],
    ],
)
def test_a_mistyped_output_makes_no_folders(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert "does not exist" in done.stderr
    assert "mkdir -p nowhere" in done.stderr
    assert not list(tmp_path.iterdir())
    assert in_a_folder(Path("comparisons/small")) == Path("comparisons/small")


METRICS = {
    "epoch": 123, "loss": 0.4321, "train_accuracy": 84.2, "test_accuracy": 85.1,
    "learning_rate": 0.08, "images_per_second": 1812.0, "seconds": 14.23, "macs_ratio": 0.6,
    "gates_open": 4944.0, "seconds_left": 7500.0,
}  # fmt: skip


@wide
def test_the_live_line_has_bar_and_epoch(width: int) -> None:
    out = io.StringIO()
    progress = make_progress(Console(file=out, width=width, force_terminal=True))
    with progress.training(122, 300, 390):
        progress.epoch(METRICS)
        progress.step(123, 40, 0.5, 1800.0)
    bars = [line for line in out.getvalue().splitlines() if "━" in line]
    assert "epoch 124/300" in bars[-1]
    assert "41%" in bars[-1]
    assert "loss 0.500" in bars[-1]
    plain = Text.from_ansi(bars[-1]).plain.rstrip()
    assert len(plain) <= width
    line = epoch_line(METRICS, 300, width)
    assert len(line) <= width
    assert all(part in line for part in ("epoch 123/300", "test  85.10 %", "2:05:00 left"))


def test_a_long_epoch_is_heard_of_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    progress = make_progress(Console(file=out, width=80))
    now = 0.0
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now)
    with progress.training(0, 12, 1000):
        for step in range(100):
            now += 1.0
            progress.step(3, step, 0.5, 1800.0)
    lines = out.getvalue().splitlines()
    assert len(lines) == 6
    assert lines[0] == "epoch  4/12  step 14/1000  loss 0.500  1,800 img/s"


@wide
def test_a_comparison_keeps_its_names(width: int) -> None:
    macs = {"macs": 41e6, "nonzero_macs": 4e6, "params": 2e6, "nonzero_params": 2e5}
    known = {**macs, "bytes": 1.2e6, "seconds": 86400.0, "latency": 0.0123}
    named = {field.name: known[field.name] for field in fields(Row) if field.name in known}
    row = Row(LONGEST, 0.99, 3, 3, 2, 1, 88.19, 0.47, 0.99, **named)  # type: ignore[arg-type]
    text = printed(width, to_rich([row], "Means over seeds"))
    told = dict(zip(columns_of([row]), cells_of(row), strict=True))
    require_words(text, [cell for name, cell in told.items() if name != "training"])


LOUD = """
import logging, os, pathlib, traceback, warnings
import typer
from prunec.cli import noise
from prunec.cli.failures import Guarded

app = typer.Typer(cls=Guarded, pretty_exceptions_enable=False)

def libraries():
    warnings.warn("a warning of a library")
    logging.getLogger("library").warning("a record of a library")
    os.write(2, b"words of C\\n")
    if os.fork() == 0:
        try:
            raise ValueError("in a process")
        except ValueError:
            traceback.print_exc()
        os._exit(0)
    os.wait()

@app.command()
def speak():
    libraries()
    noise.keep_in(pathlib.Path("run"))
    print("a word of prunec's", file=noise.screen())
    libraries()

@app.command()
def calm():
    noise.keep_in(pathlib.Path("run"))

@app.command()
def fault():
    libraries()
    1 / 0

noise.keep_off_the_screen()
app()
"""


@pytest.mark.slow
def test_what_libraries_say_is_in_the_run_and_not_on_the_screen(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(LOUD)
    (tmp_path / "run").mkdir()

    def done(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "loud.py", command], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )  # fmt: skip

    assert (done("calm").stderr, list((tmp_path / "run").iterdir())) == ("", [])
    assert done("speak").stderr == "a word of prunec's\n"
    said = (tmp_path / "run/libraries.log").read_text()
    for words in ("a record of", "words of C", "ValueError: in a process"):
        assert said.count(words) == 2
    assert "a warning of" in said
    assert not list(tmp_path.glob("prunec-*.log"))
    fault = done("fault")
    assert fault.returncode == 1
    assert fault.stdout == ""
    assert fault.stderr.startswith("error: unexpected error: ")
    assert "Traceback" not in fault.stderr
    [log] = tmp_path.glob("prunec-*.log")
    assert str(log) in fault.stderr
    assert "ZeroDivisionError" in log.read_text()


def test_images_are_loaded_by_at_most_a_process_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = available_cores()
    assert workers_here(0) == 0
    assert workers_here(1) == 1
    assert workers_here(1000) == cores
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(4 * cores))
    assert workers_here(1000) == 1
