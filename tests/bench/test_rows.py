"""A table survives what it measures: rows that raise, die or hang, and runs that are stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from bench.rows import REASON, Cells, Rows, measured

CHILD = """
import json, os, sys, time
print("{}", flush=True)
for key in json.loads(sys.argv[2])["keys"]:
    if key == "dies":
        sys.exit("out of luck")
    if key == "killed":
        os.kill(os.getpid(), 9)
    if key == "hangs":
        time.sleep(60)
    print("a library talks")
    print(json.dumps({"seen": key}), flush=True)
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    (tmp_path / "child.py").write_text(CHILD)
    return str(tmp_path / "child.py")


@pytest.mark.slow
def test_what_crashes_or_hangs_is_a_row_and_the_others_follow(script: str) -> None:
    keys = ["first", "dies", "second", "killed", "hangs", "last"]
    actual = dict(measured(script, {}, keys, limit=2))
    assert list(actual) == keys
    assert [actual[key] for key in ("first", "second", "last")] == [
        {"seen": "first"}, {"seen": "second"}, {"seen": "last"},
    ]  # fmt: skip
    assert actual["dies"][REASON] == "the process ended with 1: out of luck"
    assert actual["killed"][REASON].startswith("killed by signal 9")
    assert actual["hangs"][REASON] == "not done within 2 s"


def test_nothing_wanted_starts_nothing() -> None:
    assert list(measured("no such file", {}, [], limit=1)) == []


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    def render(rows: Mapping[str, Cells]) -> str:
        return f"{len(rows)} rows"

    Rows(tmp_path / "table.md", render).add("one", {"value": 1})
    again = Rows(tmp_path / "table.md", render)
    assert again.missing(["one", "two"]) == ["two"]
    again.add("two", {"value": 2})
    assert (tmp_path / "table.md").read_text() == "2 rows"
    assert json.loads((tmp_path / "table.json").read_text()) == {
        "one": {"value": 1},
        "two": {"value": 2},
    }
