"""A run on a GPU goes on where it stopped: parts, and tests within a part."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from bench import gpu_first

BENCH = """
import pathlib, sys, time
calls = pathlib.Path(sys.argv[1])
calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
if len(calls.read_text()) == 1:
    print("The minutes are over; the same command goes on.")
    print("| a table |")
else:
    print("done")
"""


def given(folder: Path) -> argparse.Namespace:
    return argparse.Namespace(folder=folder, device="cpu", minutes=0.0, tiny=True)


def test_a_part_that_goes_on_is_no_row_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [sys.executable, "-c", BENCH, str(tmp_path / "calls")]
    monkeypatch.setattr(gpu_first, "command", lambda *_: words)
    assert gpu_first.run("table", given(tmp_path), float("inf")) is None
    cells = gpu_first.run("table", given(tmp_path), float("inf"))
    assert cells is not None
    assert (cells["end"], cells["code"]) == ("done", 0)


def test_tests_that_passed_are_left_out(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text(
        "tests/a/test_b.py::test_c[two of four-fp32] PASSED [ 10%]\n"
        "tests/a/test_b.py::test_d FAILED [ 20%]\n"
        "tests/a/test_b.py::test_e PASSED [ 30%]\n"
    )
    words: Sequence[str] = gpu_first.command("methods", given(tmp_path), 5.0, log)
    left_out = [words[i + 1] for i, word in enumerate(words) if word == "--deselect"]
    assert left_out == ["tests/a/test_b.py::test_c[two of four-fp32]", "tests/a/test_b.py::test_e"]


def test_what_a_part_runs_is_there() -> None:
    for part, files in gpu_first.PARTS.items():
        folder = gpu_first.HERE if part in ("table", "long trainings") else gpu_first.TESTS
        assert all((folder / name).is_file() for name in files)
