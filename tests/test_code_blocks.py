"""Code blocks of README and docs run as written, page by page, in a folder with one small run.

The folder holds the network, the images and the pruned checkpoint of docs/tasks.md, a run called
``RUN`` that was compiled from them, a ``model.onnx`` with dead channels, and one ``shirt.jpg``.
"""

from __future__ import annotations

import copy
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import PAGES, ROOT, RUNNABLE, Block, blocks
from sampling import slow_case
from typer.testing import CliRunner

import prunec
from prunec.cli.commands import app
from prunec.recipe import loads, packaged_text

BLOCKS = [block for page in PAGES for block in blocks(page)]
RUNNING = sorted({b.page for b in BLOCKS if b.runs_here and b.language in ("sh", "python")})
QUICK = "security.md"  # the others export or train: seconds to minutes each


def test_every_block_runs_or_says_why_not() -> None:
    for block in BLOCKS:
        kind, _, reason = block.marker.partition(":")
        if kind == "not run":
            assert len(reason.split()) > 1, f"{block.place}: the marker gives no reason"
        elif block.marker.startswith("run by "):
            test = ROOT / block.marker.removeprefix("run by ")
            assert block.page.name in test.read_text("utf-8"), f"{block.place}: {test} reads it not"
        elif block.language not in RUNNABLE:
            assert block.language in ("", "c", "json", "console"), f"{block.place}: language"


TOML = [block for block in BLOCKS if block.runs_here and block.language == "toml"]


@pytest.mark.parametrize("block", TOML, ids=lambda block: block.place)
def test_parts_of_recipes_are_valid(block: Block) -> None:
    recipe = tomllib.loads(packaged_text("gdp_mbv2"))
    loads(_toml(_merged(recipe, tomllib.loads(block.text))))


def _merged(recipe: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe with the keys of a part; lists of tables gain what they lack by name."""
    merged = copy.deepcopy(recipe)
    for key, value in part.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = _merged(old, value)
        elif key in ("pass", "export") and isinstance(old, list):
            replaced = {each["name"]: each for each in value}
            merged[key] = [replaced.pop(each["name"], each) for each in old]
            merged[key] += replaced.values()
        else:
            merged[key] = value
    return merged


def _toml(recipe: dict[str, Any]) -> str:
    import tomlkit

    return tomlkit.dumps(recipe)


def half_dead(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights in which eight filters of the first convolution and their biases are zero."""
    return {
        name: torch.cat([value[:8], torch.zeros_like(value[8:])])
        if name.startswith("0.")
        else value
        for name, value in weights.items()
    }


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    start = next(b for b in blocks(ROOT / "docs" / "tasks.md") if b.language == "python")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        _python(start)
        _prunec("compile mynet:net --weights pruned.pt --input 3x24x24 --data images -o RUN", "")
        mynet = import_module("mynet").net().eval()
        mynet.load_state_dict(half_dead(mynet.state_dict()))
        prunec.export_onnx(mynet, torch.randn(1, 3, 24, 24), "model.onnx")
        from PIL import Image

        Image.open("images/cats/0.png").save("shirt.jpg")
        sys.modules.pop("mynet", None)
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a copy of the prepared folder, which is the current one and on Python's path."""
    copied = shutil.copytree(prepared, tmp_path / "page")
    monkeypatch.chdir(copied)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.syspath_prepend(str(copied))
    yield copied
    sys.modules.pop("mynet", None)


def _cases() -> list[Any]:
    return [page if page.name == QUICK else slow_case(page, nightly=True) for page in RUNNING]


@pytest.mark.slow
@pytest.mark.parametrize("page", _cases(), ids=lambda page: page.name)
def test_the_blocks_of_a_page_run(page: Path, folder: Path) -> None:
    printed = ""
    for block in blocks(page):
        if block.marker == "printed":
            _same(block, printed)
        if block.runs_here and block.language == "python":
            _python(block)
        if block.runs_here and block.language == "sh":
            printed = _shell(block)


def _python(block: Block) -> None:
    exec(compile(block.text, block.place, "exec"), {"__name__": "__main__"})


def _shell(block: Block) -> str:
    """Run the lines of a block; return what they print."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return "".join(
        _prunec(line.removeprefix("prunec "), block.place)
        if line.startswith("prunec ")
        else _program(line, block.place)
        for line in lines
        if line.strip() and not line.startswith("#")
    )


def _prunec(arguments: str, place: str) -> str:
    result = CliRunner().invoke(app, shlex.split(arguments, comments=True))
    assert result.exit_code == 0, f"{place}: prunec {arguments}\n{result.output}"
    return result.output


def _program(line: str, place: str) -> str:
    command = shlex.split(line, comments=True)
    if shutil.which(command[0]) is None:
        pytest.skip(f"{place}: {command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{place}: {line}\n{done.stdout}{done.stderr}"
    return done.stdout


def _same(block: Block, printed: str) -> None:
    """Hold every line of a block to be in what was printed, whatever the spaces between words."""
    words = re.sub(r"\s+", " ", printed)
    for line in block.text.splitlines():
        assert re.sub(r"\s+", " ", line.strip()) in words, f"{block.place}: {line}\n{printed}"
