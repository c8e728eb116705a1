"""The notebook in docs runs from its first cell to its last, and its stored outputs are of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from notebook import run_notebook

TOUR = Path(__file__).parent.parent / "docs" / "tour.ipynb"


@pytest.mark.nightly  # `.ci/run` runs it beside the suite
def test_the_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    tour = json.loads(TOUR.read_text("utf-8"))
    printed = run_notebook(tour)
    stored = [_stored(cell) for cell in tour["cells"] if cell["cell_type"] == "code"]
    assert [len(text.splitlines()) for text in printed] == [
        len(text.splitlines()) for text in stored
    ]
    assert printed[1] == stored[1]  # counts of MACs are the same on every machine


def _stored(cell: dict[str, Any]) -> str:
    return "".join(line for output in cell["outputs"] for line in output["text"])
