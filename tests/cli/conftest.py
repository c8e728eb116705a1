"""A folder with a recipe, and a pipeline that trains nothing."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from fake_pipeline import RECIPE, FakePipeline

import prunec


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> FakePipeline:
    import_module("prunec.page")  # with the true prunec.deploy.checks
    fake = FakePipeline()
    progress: Any = ModuleType("prunec.training.progress")
    progress.make_progress = lambda console: SimpleNamespace(console=console)
    verify: Any = ModuleType("prunec.deploy.checks")
    verify.render = lambda report, console, title: console.print(f"passed: {report.passed}")
    for name, module in {
        "pipeline": fake,
        "training.progress": progress,
        "deploy.checks": verify,
    }.items():
        monkeypatch.setitem(sys.modules, f"prunec.{name}", module)
    monkeypatch.setattr(prunec, "pipeline", fake, raising=False)
    monkeypatch.setattr("prunec.cli.selection.self_contained", lambda recipe, source: recipe)
    monkeypatch.setattr("prunec.cli.selection.trains", lambda recipe, source: True)
    return fake


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRUNEC_RUNS", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "small.toml").write_text(RECIPE)
    return tmp_path
