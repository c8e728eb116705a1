"""Tables that take hours: a row at a time, each on file as soon as it is known.

Rows live in a JSON file, key → cells; a table in Markdown is written beside it after every row. A
killed run goes on where it stopped. What is measured runs in child processes, which report each row
as a line of JSON: a child that crashes or exceeds its time is a row with that reason, and the next
child takes the rows after it.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from prunec.files import write_bytes_atomic

Cells = dict[str, Any]
START = 180.0  # seconds that a child may take to import what it needs
REASON = "reason"  # the cell of a row that says why it failed


@dataclass
class Rows:
    """Rows by key, on file if there is one.

    Attributes:
        output: where to write, ``.json`` or ``.md``; the rows of the latter are kept beside it.
        render: the table of all rows in Markdown.
    """

    output: Path | None
    render: Callable[[Mapping[str, Cells]], str]
    cells: dict[str, Cells] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.output and self.store.exists():
            self.cells = json.loads(self.store.read_text())

    @property
    def store(self) -> Path:
        assert self.output is not None
        return self.output.with_suffix(".json")

    def missing(self, keys: Iterable[str]) -> list[str]:
        return [key for key in keys if key not in self.cells]

    def add(self, key: str, cells: Cells) -> None:
        self.cells[key] = cells
        if self.output is None:
            return
        self.output.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(self.store, json.dumps(self.cells, indent=1).encode())
        if self.output.suffix == ".md":
            write_bytes_atomic(self.output, self.render(self.cells).encode())


def measured(
    script: str, job: Mapping[str, Any], keys: Sequence[str], limit: float
) -> Iterator[tuple[str, Cells]]:
    """Rows of ``keys`` in order, measured by children that run ``script --child``.

    Args:
        script: file whose main calls :func:`serve`.
        job: what the child is told besides the keys.
        keys: rows wanted.
        limit: seconds for each.
    """
    left = list(keys)
    while left:
        with tempfile.TemporaryFile() as errors:
            for key, cells in _one_child(script, {**job, "keys": left}, left, limit, errors):
                left.remove(key)
                yield key, cells


def _one_child(
    script: str, job: Mapping[str, Any], keys: Sequence[str], limit: float, errors: IO[bytes]
) -> Iterator[tuple[str, Cells]]:
    """Rows until the child is done or dies; its death is the last row."""
    command = [sys.executable, script, "--child", json.dumps(job)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as child:
        assert child.stdout is not None
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_pump, args=(child.stdout, lines), daemon=True).start()
        try:
            waits = [START, *[limit] * len(keys)]
            for key, wait in zip(["", *keys], waits, strict=True):
                line = lines.get(timeout=wait)
                if not line:
                    yield key or keys[0], {REASON: _death(child.wait(), errors)}
                    return
                if key:
                    yield key, json.loads(line)
        except queue.Empty:
            yield key or keys[0], {REASON: f"not done within {wait:.0f} s"}
        finally:
            child.kill()


def _pump(stream: IO[str], lines: queue.Queue[str]) -> None:
    for line in stream:
        if line.startswith("{"):  # others talk on the standard output too
            lines.put(line)
    lines.put("")


def _death(code: int, errors: IO[bytes]) -> str:
    if code < 0:
        return f"killed by signal {-code}" + (", short of memory?" if code == -9 else "")
    errors.seek(0)
    text = errors.read().decode(errors="replace").strip().splitlines()
    return f"the process ended with {code}: {text[-1] if text else ''}"


def serve(job: Mapping[str, Any], row: Callable[[str], Cells]) -> None:
    """In a child: report that it is ready, then one row after the other."""
    print("{}", flush=True)
    for key in job["keys"]:
        try:
            cells = row(key)
        except Exception as error:
            cells = {REASON: first_line(error)}
        print(json.dumps(cells), flush=True)


def first_line(error: BaseException) -> str:
    """Kind and first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160] if lines else ''}"


def arguments(description: str, limit: float) -> argparse.ArgumentParser:
    """The options that every table has."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, help=".md or .json; an old run goes on")
    parser.add_argument("--limit", type=float, default=limit, help="seconds for each row")
    parser.add_argument("--retry", action="store_true", help="measure failed rows again")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


def forget_failures(rows: Rows, keys: Iterable[str], failed: Callable[[Cells], bool]) -> None:
    """Drop the failed rows among ``keys``, so that they are measured again."""
    for key in keys:
        if key in rows.cells and failed(rows.cells[key]):
            del rows.cells[key]


def listed(text: str | None) -> list[str] | None:
    """The words of a list with commas."""
    return None if text is None else [word for word in text.split(",") if word]


def when_and_with(*packages: str) -> str:
    """Date, machine and versions, as a line."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    return ", ".join(
        [
            datetime.date.today().isoformat(),
            f"Python {platform.python_version()}",
            *versions,
            f"one thread of {os.cpu_count()} × {platform.machine()}",
        ]
    )


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table: the first column to the left, the others to the right."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "--:|" * (len(header) - 1)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
