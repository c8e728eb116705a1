"""Refusals before anything is created, with a message that names place and remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from prunec.batches.batches import Data
from prunec.batches.data import load_data
from prunec.cli.commands import app
from prunec.recipe import DataSpec
from prunec.store.runs import RunFolder
from prunec.training import loop

RECIPE = """
name = "small"
device = "cpu"
[model]
name = "test_preparing:Small"
[data]
name = "embedded"
mean = [0.3]
std = [0.35]
[train]
epochs = 4
batch_size = 2000
precision = "fp32"
channels_last = true
threads = 1
[[pass]]
name = "train-gdp"
dense = 0.25
select = 0.25
macs_ratio = 0.6
round_to = 2
[[pass]]
name = "absorb-gates"
[[pass]]
name = "remove-channels"
round_to = 2
[verify.budget]
macs_ratio = 0.6
latency_ratio = false
"""


class Small(nn.Sequential):
    """Images of 1×28×28; reads them coarsely, so that it is quick."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            nn.Conv2d(1, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
        )  # fmt: skip


class Colour(Small):
    """Takes three channels."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self[0] = nn.Conv2d(3, 8, 4, 4)


class Deaf(Small):
    """Knows of no number of classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(3)


class Talkative(Small):
    """Answers twice while it trains."""

    def forward(self, input: Tensor) -> Any:
        """One answer, or two."""
        answer = super().forward(input)
        return (answer, answer) if self.training else answer


LOADED: dict[str, Data] = {}


def known_data(spec: DataSpec, *, seed: int) -> Data:
    """The data, read once for all tests that name the same."""
    key = spec.model_dump_json()
    if key not in LOADED:
        LOADED[key] = load_data(spec, seed=seed)
    return LOADED[key]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRUNEC_RUNS", raising=False)
    monkeypatch.setattr("prunec.pipeline.opened_recipe.load_data", known_data)
    (tmp_path / "small.toml").write_text(RECIPE)
    return tmp_path


def prunec(*arguments: str) -> Any:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "80"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


SPARSE = 'pass=[{name="train-rigl",sparsity=0.9,spread="uniform",dense=["*"]}]'


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["train.epochs=0"], ("train.epochs", "at least 1")),
        (["pass.0.dense_epochs=4", "pass.0.select_epochs=1"], ("+ select_epochs is 5",)),
        (["pass.0.dense=2"], ("dense", "dense_epochs = 2")),
        (["model.weights=lost.pt"], ("lost.pt",)),
        (["model.name=test_preparing:Larg"], ("'Larg'", "It has: ")),
        (["model.name=test_preparing:Colour"], ("1×28×28",)),
        (["model.name=test_preparing:Deaf"], ("10 classes", "num_classes")),
        (["model.name=test_preparing:Talkative"], ("one tensor",)),
        (["data.name=imagefolder", "data.root=nowhere"], ("nowhere",)),
        (["data.prepare=[{name='Resize',size=9}]"], ("small.toml", "data")),
        (["pass.0.macs_ratio=0.01", "verify.budget.macs_ratio=0.01"], ("cannot be reached",)),
        (["verify.budget.macs_ratio=0.5"], ("macs_ratio = 0.6", "allows 0.5")),
        (['export=[{name="to-onnx",opset=99}]'], ("opset",)),
        (["train.teacher.run=gone"], ("gone",)),
        ([SPARSE], ("train-rigl",)),
        (["model.name=squeezenet"], ("squeezenet",)),
    ],
)  # fmt: skip
def test_what_is_refused_leaves_no_folder(
    changes: list[str], words: tuple[str, ...], folder: Path
) -> None:
    sets = [part for change in changes for part in ("--set", change)]
    result = prunec("train", "small.toml", *sets)
    assert result.exit_code == 1, result.output
    assert "remedy: " in result.stderr
    for word in words:
        assert word in result.stderr, result.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["small.toml"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there_leaves_no_folder(folder: Path) -> None:
    assert "no CUDA device" in prunec("train", "small.toml", "--device", "cuda").stderr
    assert not (folder / "runs").exists()


def test_a_recipe_that_trains_nothing_is_checked_before_its_folder_is_made(folder: Path) -> None:
    text = RECIPE[: RECIPE.index("[data]")].replace("Small", 'Small"\nweights = "lost.pt')
    (folder / "cut.toml").write_text(text + '[[pass]]\nname = "remove-channels"\n')
    result = prunec("export", "cut.toml")
    assert result.exit_code == 1
    assert "lost.pt" in result.stderr
    assert not (folder / "runs").exists()


@pytest.mark.slow
def test_a_training_of_three_epochs_is_told_gated_and_shipped(folder: Path) -> None:
    """Phases end within epochs: the dense network is tested there."""
    trained = prunec("train", "small.toml", "--set", "train.epochs=3")
    assert trained.exit_code == 0, trained.output
    assert "3 epochs: dense 0.75, select 0.75, survivors 1.5" in trained.stdout
    run = RunFolder(Path("runs/small-001"))
    (step,) = json.loads((run.step(0, "train-gdp") / "artifact.json").read_text())["history"]
    assert "after the dense phase of 0.833 epochs" in step["notes"][0]  # five of six steps
    assert step["details"]["phases"] == {"dense": 0.75, "select": 0.75, "survivors": 1.5}
    assert 0 < step["details"]["dense_phase_accuracy"] <= 100
    exported = prunec("export")
    assert "budget: accuracy drop" in exported.stdout, exported.output
    assert "train-gdp: MACs / dense" in exported.stdout
    assert exported.exit_code in (0, 2)
    assert "dense 0.75, select 0.75" in (run.path / "report.html").read_text()
    listed = prunec("runs")
    assert "small-001" in listed.stdout


@pytest.mark.slow
def test_a_comparison_that_cannot_begin_leaves_no_folder(folder: Path) -> None:
    result = prunec("compare", "small.toml", "--set", "data.name=imagefolder", "--seeds", "1")
    assert result.exit_code == 1
    assert "error: " in result.stderr
    result = prunec("compare", "small.toml", "--set", "pass.0.macs_ratio=0.01", "--seeds", "1")
    assert "cannot be reached" in result.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["small.toml"]


@pytest.mark.slow
def test_a_failed_run_is_passed_over_and_exported_never(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> float:
        return float("nan")

    monkeypatch.setattr(loop, "learning_rate", broken)
    failed = prunec("train", "small.toml", "--set", "train.epochs=1")
    assert failed.exit_code == 1
    assert "diverged" in failed.stderr
    for command in (["export"], ["export", "small-001"], ["verify", "small-001"], ["inspect"],
                    ["inspect", "small-001"], ["count", "small-001"], ["bench", "small-001"],
                    ["densities", "small-001"]):  # fmt: skip
        result = prunec(*command)
        assert result.exit_code == 1, result.output
        assert "runs/small-001" in result.stderr, command
        assert "-1-" not in result.stderr
        assert "prunec train --resume runs/small-001" in result.stderr, result.stderr
    assert "diverged" in prunec("export", "small-001").stderr
    RunFolder(Path("runs/small-001")).mark("training")  # as if it had been killed
    for command in (["export"], ["verify"], ["export", "small-001"]):
        result = prunec(*command)
        assert "it was stopped before its first epoch ended" in result.stderr, result.stderr
        assert "prunec train --resume runs/small-001" in result.stderr
