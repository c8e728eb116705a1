"""Three recipes, and children that leave what trainings leave."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from comparison_recipes import PASSES, write_recipe

from prunec.comparison import job

STUB = Path(__file__).parent / "comparison_stub.py"


@pytest.fixture
def recipes(tmp_path: Path) -> list[str]:
    return [write_recipe(tmp_path, name) for name in PASSES]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children are no trainings: they leave what one leaves."""
    monkeypatch.setattr(job, "PROGRAM", (sys.executable, str(STUB)))
    monkeypatch.setattr("prunec.comparison.pool.PAUSE", 0.01)
    monkeypatch.setattr("prunec.comparison.compare.require_ready", lambda cells: None)
