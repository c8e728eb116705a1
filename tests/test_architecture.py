"""Rules of the house: no import runs up, no circle, few rooms, files say what they hold."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "prunec"
PLUG_INS = ("passes", "exporters", "recipes")
FILES = [
    *PACKAGE.rglob("*.py"),
    *(path for name in PLUG_INS for path in (ROOT / name).glob("*.py")),
]
MOST_ROOMS = 32
MOST_LOOSE_FILES = 12
LINTER = (
    "import sys; from importlinter.cli import lint_imports;"
    "sys.exit(lint_imports(config_filename=sys.argv[1], cache_dir=None))"
)


def laid_out(folder: Path) -> Path:
    """A folder with the package as an install lays it out: plug-ins inside."""
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, folder / "prunec", ignore=without)
    for name in PLUG_INS:
        shutil.copytree(ROOT / name, folder / "prunec" / name, ignore=without)
    return folder


def lint(installed: Path) -> subprocess.CompletedProcess[str]:
    """Output of import-linter for the rules in pyproject.toml."""
    command = [sys.executable, "-c", LINTER, str(ROOT / "pyproject.toml")]
    environment = {**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "200"}
    return subprocess.run(command, cwd=installed, env=environment, capture_output=True, text=True)


def test_imports_run_down_without_a_circle(tmp_path: Path) -> None:
    done = lint(laid_out(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr


# What is added to which file, and the line in which the linter tells of it.
SPOILED = {
    "an import that runs up": ("errors.py", "from prunec.files import require_writable",
                               "prunec.errors -> prunec.files"),
    "one for type checkers": (
        "wording.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from prunec.store import runs",
        "prunec.wording -> prunec.store.runs",
    ),
    "one inside a function": ("tables.py", "def f() -> None:\n    import prunec.page",
                              "prunec.tables -> prunec.page"),
    "a circle inside a room": ("tasks/quality.py", "from prunec.tasks.task import Task",
                               "No cycles are allowed in prunec.tasks."),
    "a plug-in by its name": ("api/compiling.py", "from prunec.passes import train_gdp",
                              "prunec.api.compiling -> prunec.passes.train_gdp"),
    "a room in no layer": ("attic.py", "", "attic"),
}  # fmt: skip


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Output of the linter for a package that breaks every rule."""
    installed = laid_out(tmp_path_factory.mktemp("broken"))
    for name, line, _ in SPOILED.values():
        with (installed / "prunec" / name).open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")
    done = lint(installed)
    assert done.returncode, done.stdout
    return done.stdout


@pytest.mark.parametrize("spoil", SPOILED)
def test_a_broken_rule_is_seen(broken: str, spoil: str) -> None:
    assert SPOILED[spoil][2] in broken, broken


def test_rooms_are_few() -> None:
    loose = [path for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")]
    rooms = [path for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()]
    assert len(loose) <= MOST_LOOSE_FILES
    assert len(loose) + len(rooms) + len(PLUG_INS) <= MOST_ROOMS


def test_the_map_lists_every_room_in_the_order_of_imports() -> None:
    """docs/contributing.md lists the layers of pyproject.toml, the lowest first."""
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    layers = next(c["layers"] for c in rules["contracts"] if c["type"] == "layers")
    rooms = [room for layer in reversed(layers) for room in re.split(r"\s*\|\s*", layer)]
    text = (ROOT / "docs" / "contributing.md").read_text("utf-8")
    table = text.partition("## The rooms of the code")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\w+?)(?:/|\.py)` \|", table, re.MULTILINE)
    assert listed == [room for room in rooms if room != "__main__"]


def test_plug_ins_keep_their_names_free() -> None:
    for name in PLUG_INS:
        assert not (PACKAGE / name).exists()
        assert not (PACKAGE / f"{name}.py").exists()


def test_every_package_is_listed() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    for folder in {path.parent for path in PACKAGE.rglob("*.py")}:
        assert f'"{".".join(folder.relative_to(ROOT).parts)}"' in text


def test_every_module_says_what_it_is() -> None:
    for path in FILES:
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), path
