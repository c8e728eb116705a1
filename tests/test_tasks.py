"""The twenty tasks of docs/tasks.md end as they are written, one after the other in one folder."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prunec.cli.commands import app

PAGE = Path(__file__).parent.parent / "docs" / "tasks.md"
LONG = range(9, 18)  # tasks that train, or look at what was trained


@dataclass(frozen=True)
class Task:
    """A task of the page: its number, its title, its blocks of code by language."""

    number: int
    title: str
    blocks: tuple[tuple[str, str], ...]


def tasks() -> list[Task]:
    """Return all of them; number 0 is what they start from."""
    parts = re.split(r"^## (\d+)\. (.*)$", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    texts = [("0", "what they start from", parts[0]), *zip(*[iter(parts[1:])] * 3, strict=True)]
    return [
        Task(int(number), title, tuple(re.findall(r"^```(\w+)\n(.*?)^```", text, re.M | re.S)))
        for number, title, text in texts
    ]


def test_there_are_twenty_and_each_has_its_commands() -> None:
    listed = tasks()
    assert [task.number for task in listed] == list(range(21))
    assert all(task.blocks for task in listed)
    assert {language for task in listed for language, _ in task.blocks} == {"sh", "python"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to start prunec in, whose modules Python finds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("mynet", None)
    yield tmp_path
    sys.modules.pop("mynet", None)


@pytest.mark.slow
def test_what_needs_no_training_ends_as_written(folder: Path) -> None:
    for task in tasks():
        if task.number not in LONG:
            done(task)


@pytest.mark.nightly
def test_all_end_as_written(folder: Path) -> None:
    for task in tasks():
        done(task)


def done(task: Task) -> None:
    """Run a task's blocks in this process; a command that exits with another code than 0 fails."""
    for language, code in task.blocks:
        if language == "python":
            exec(compile(code, task.title, "exec"), {"__name__": "__main__"})
            continue
        for line in code.strip().replace("\\\n", " ").splitlines():
            command, _, target = line.partition(" > ")
            program, *arguments = shlex.split(command)
            assert program == "prunec"
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == 0, f"task {task.number}: {line}\n{result.output}"
            if target:
                Path(target).write_text(result.stdout)
