"""The main job through the command line, on a network and images that take seconds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from run_folders import restate
from sampling import slow_case
from typer.testing import CliRunner

from prunec.cli.commands import app
from prunec.recipe import digest, load_recipe, loads
from prunec.store.runs import RunFolder
from prunec.training import loop
from prunec.training.progress import PlainProgress

CLASSES = ("left", "middle", "right")
EPOCHS = 5
RECIPE = """
name = "tiny"
seed = 3
device = "cpu"

[model]
name = "end_to_end_net:Tiny"
options = { width = 16 }

[data]
name = "imagefolder"
root = "ROOT"
augment = [{ name = "RandomVerticalFlip" }]

[train]
epochs = 5
batch_size = 16
learning_rate = 0.05
precision = "fp32"
channels_last = true
threads = 1

[[pass]]
name = "train-gdp"
dense_epochs = 1
select_epochs = 2
macs_ratio = 0.5
round_to = 8

[[pass]]
name = "absorb-gates"

[[pass]]
name = "remove-channels"
round_to = 8

[[pass]]
name = "compact-masks"

[[pass]]
name = "fold-batchnorm"

[verify.budget]
macs_ratio = 0.5
latency_ratio = false         # a network this small measures the clock
"""


@dataclass(frozen=True)
class Answer:
    """Output of a command."""

    code: int
    text: str
    errors: str


def prunec(*arguments: str | Path, code: int = 0) -> Answer:
    """Run a command in this process; never a traceback, and the exit code asked for."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    assert result.exit_code == code, result.output
    return Answer(result.exit_code, result.stdout, result.stderr)


def write_images(root: Path) -> None:
    """Noise with a bright column left, in the middle or right."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 32), ("val", 8)):
        for place, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 90, (16, 16, 3), dtype=np.uint8)
                pixels[:, 3 + 5 * place] += 150
                Image.fromarray(pixels).save(folder / f"{number:03d}.png")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("end-to-end")
    write_images(folder / "images")
    (folder / "tiny.toml").write_text(RECIPE.replace("ROOT", str(folder / "images")))
    return folder


@pytest.fixture(scope="module")
def trained(work: Path) -> RunFolder:
    prunec("train", work / "tiny.toml", "--runs", work / "runs")
    return RunFolder(work / "runs" / "tiny-001")


@pytest.fixture(scope="module")
def exported(trained: RunFolder) -> tuple[RunFolder, Answer]:
    return trained, prunec("export", trained.path, "--onnx")


def weights_of(run: RunFolder) -> str:
    record = json.loads((run.step(0, "train-gdp") / "artifact.json").read_text())
    return str(record["history"][-1]["digest"])


def test_training_leaves_a_run_that_says_everything(trained: RunFolder, work: Path) -> None:
    assert trained.status in ("trained", "exported")
    assert trained.recipe == load_recipe(str(work / "tiny.toml"))
    metrics = [json.loads(line) for line in trained.metrics.read_text().splitlines()]
    assert [m["epoch"] for m in metrics] == list(range(1, EPOCHS + 1))
    assert {m["pass"] for m in metrics} == {"train-gdp"}
    assert metrics[0]["macs_ratio"] == 1
    assert metrics[-1]["macs_ratio"] <= 0.5
    assert metrics[-1]["gates_between"] == 0
    assert metrics[-1]["test_accuracy"] > 60
    assert json.loads((trained.path / "environment.json").read_text())
    assert (trained.step(0, "train-gdp") / "weights.safetensors").is_file()


def test_export_runs_every_rewrite_and_proves_the_file(
    exported: tuple[RunFolder, Answer],
) -> None:
    run, answer = exported
    names = ("train-gdp", "absorb-gates", "remove-channels", "compact-masks", "fold-batchnorm")
    assert sorted(p.name for p in run.steps.iterdir()) == [
        f"{i:02d}-{name}" for i, name in enumerate(names)
    ]
    places = [answer.text.index(f"{name}:") for name in names[1:]]
    assert places == sorted(places)
    assert "checks passed" in answer.text
    assert run.status == "exported"
    report = json.loads(run.export.report.read_text())
    assert report["passed"]
    checks = {check["name"]: check for check in report["forms"]["onnx"]["checks"]}
    assert checks["top-1 agreement"]["found"] == 1
    assert checks["MACs"]["expected"] == checks["MACs"]["found"]
    assert checks["budget: MACs / dense"]["found"] <= 0.5
    assert not any(name.startswith("budget: latency") for name in checks)
    assert not run.export.candidate("onnx", ".onnx").exists()


def test_the_file_carries_its_recipe_history_and_names(
    exported: tuple[RunFolder, Answer],
) -> None:
    run, _ = exported
    model = onnx.load(run.export.shipped("onnx", ".onnx"))
    onnx.checker.check_model(model, full_check=True)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert loads(metadata["prunec.recipe"]) == run.recipe
    assert metadata["prunec.recipe_digest"] == digest(run.recipe)
    history = json.loads(metadata["prunec.history"])
    assert [step["name"] for step in history][::4] == ["train-gdp", "fold-batchnorm"]
    assert int(metadata["prunec.macs"]) == history[-1]["macs"][1] <= history[0]["macs"][0] / 2
    assert [value.name for value in model.graph.input] == ["input"]
    assert [value.name for value in model.graph.output] == ["logits"]
    sizes = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == ["batch", 3, 16, 16]
    manifest = json.loads(run.export.manifest.read_text())["onnx"]
    assert manifest["file"] == "onnx/model.onnx"
    assert manifest["macs"] == int(metadata["prunec.macs"])
    assert manifest["bytes"] == run.export.shipped("onnx", ".onnx").stat().st_size
    assert not any("BatchNormalization" in node.op_type for node in model.graph.node)


@pytest.mark.slow
def test_a_second_export_writes_the_same_bytes(exported: tuple[RunFolder, Answer]) -> None:
    run, _ = exported
    first = run.export.shipped("onnx", ".onnx").read_bytes()
    target = run.path / "elsewhere" / "again.onnx"
    target.parent.mkdir()
    twin = run.export.dense("onnx", ".onnx").stat().st_mtime_ns
    prunec("export", run.path, "-o", target)
    assert target.read_bytes() == first
    assert run.export.dense("onnx", ".onnx").stat().st_mtime_ns == twin  # which is kept
    assert run.export.shipped("onnx", ".onnx").read_bytes() == first


@pytest.mark.slow
def test_verify_inspect_and_bench_read_the_run(exported: tuple[RunFolder, Answer]) -> None:
    run, _ = exported
    report = json.loads(prunec("verify", run.path, "--json").text)["forms"]["onnx"]
    assert report["passed"]
    assert report["details"]["file"] == str(run.export.shipped("onnx", ".onnx"))
    seen = json.loads(prunec("inspect", run.path, "--json").text)
    assert "fold-batchnorm" in seen["title"]
    layers: list[dict[str, Any]] = seen["cost"]["layers"]
    assert sum(layer["macs"] for layer in layers) == report["details"]["macs"]
    table = prunec("bench", run.path).text
    assert "MACs" in table
    assert f"{report['details']['macs ratio']:.3f}" in table


@pytest.mark.slow
def test_the_page_of_a_run_keeps_up_with_it(exported: tuple[RunFolder, Answer]) -> None:
    run, answer = exported
    page = run.path / "report.html"
    assert f"Wrote {page}" in answer.text
    layers = json.loads(run.export.report.read_text())["layers"]
    history = json.loads((run.step(4, "fold-batchnorm") / "artifact.json").read_text())["history"]
    costs = [history[-1]["macs"][1], history[0]["macs"][0]]
    assert [sum(layer["macs"][i] for layer in layers) for i in (0, 1)] == costs
    prunec("export", run.path)
    assert "checks passed, at export" in page.read_text()
    prunec("verify", run.path)
    text = page.read_text()
    assert "checks passed, verified" in text
    for part in ("body.0.0", "Histogram of gate g", "Gates open per layer", run.record["digest"]):
        assert part in text
    assert f">{costs[0]:,}<" in text


@pytest.mark.slow
def test_checking_another_file_says_nothing_of_the_run(
    exported: tuple[RunFolder, Answer], tmp_path: Path
) -> None:
    run, _ = exported
    before = (run.path / "report.html").read_text()
    shutil.copy(run.export.shipped("onnx", ".onnx"), tmp_path / "other.onnx")
    prunec("verify", run.path, "--onnx", tmp_path / "other.onnx")
    assert (run.path / "report.html").read_text() == before


@pytest.mark.slow
def test_a_run_is_exported_or_verified_by_one_process_at_a_time(
    exported: tuple[RunFolder, Answer],
) -> None:
    run, _ = exported
    with run.held():
        for command in ("export", "verify"):
            answer = prunec(command, run.path, code=1)
            assert f"another process is working on {run.path}" in answer.errors
            assert "Wait for it or stop it" in answer.errors
        prunec(
            "verify", run.path, "--onnx", run.export.shipped("onnx", ".onnx")
        )  # which only reads


@pytest.mark.slow
def test_a_run_whose_lock_cannot_be_made_is_verified(
    exported: tuple[RunFolder, Answer], tmp_path: Path
) -> None:
    """Simulate a read-only folder, which does not exist for a superuser."""
    run = RunFolder(tmp_path / "tiny-001")
    shutil.copytree(exported[0].path, run.path, ignore=shutil.ignore_patterns(".lock"))
    (run.path / ".lock").mkdir()
    assert "checks passed" in prunec("verify", run.path).text
    errors = prunec("export", run.path, code=1).errors
    assert f"{run.path} cannot be written" in errors
    assert "Copy the run" in errors


def _another_weight(path: Path) -> None:
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.name.endswith("weight"))
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[0] += 0.5
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)


def _edited_macs(path: Path) -> None:
    model = onnx.load(path)
    entry = next(e for e in model.metadata_props if e.key == "prunec.macs")
    entry.value = str(int(entry.value) // 2)
    onnx.save(model, path)


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_another_weight, "weights"),
        slow_case((_edited_macs, "MAC metadata was edited")),
        slow_case((_truncated, "truncated")),
    ],
)
def test_a_spoiled_file_fails_with_exit_code_2(
    exported: tuple[RunFolder, Answer],
    tmp_path: Path,
    spoil: Callable[[Path], None],
    message: str,
) -> None:
    run, _ = exported
    path = tmp_path / "spoiled.onnx"
    shutil.copy(run.export.shipped("onnx", ".onnx"), path)
    spoil(path)
    answer = prunec("verify", run.path, "--onnx", path, code=2)
    assert message in answer.text


@pytest.mark.slow
def test_a_file_that_misses_its_budget_does_not_ship(
    exported: tuple[RunFolder, Answer], tmp_path: Path
) -> None:
    run, _ = exported
    strict = RunFolder(tmp_path / "strict-001")
    shutil.copytree(run.path, strict.path, ignore=shutil.ignore_patterns("export", "0[1-9]-*"))
    restate(strict, "{macs_ratio = 0.5", "{macs_ratio = 0.01")
    answer = prunec("export", strict.path, code=2)
    assert "the recipe allows 1 %" in answer.text
    assert strict.export.candidate("onnx", ".onnx").is_file()
    assert not strict.export.shipped("onnx", ".onnx").exists()


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_weights(
    trained: RunFolder, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also: the same recipe and seed give the same weights twice."""
    told = PlainProgress.epoch

    def stop(self: PlainProgress, metrics: Any) -> None:
        told(self, metrics)
        if metrics["epoch"] == 2:
            raise KeyboardInterrupt

    runs = work / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(PlainProgress, "epoch", stop)
        answer = prunec("train", work / "tiny.toml", "--runs", runs, code=130)
    run = RunFolder(runs / "tiny-001")
    assert run.status == "interrupted"
    assert f"prunec train --resume {run.path}" in answer.errors
    assert not run.step(0, "train-gdp").exists()
    answer = prunec("train", "--resume", "--runs", runs)
    assert "Continuing after epoch 2" in answer.text
    assert run.status == "trained"
    assert weights_of(run) == weights_of(trained)
    lines = run.metrics.read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, EPOCHS + 1))
    answer = prunec("train", "--resume", "--runs", runs, code=1)
    assert "is fully trained" in answer.errors


@pytest.mark.slow
def test_an_export_before_training_is_over_says_so(work: Path) -> None:
    runs = work / "never"
    prunec("train", work / "tiny.toml", "--runs", runs, "--set", "train.learning_rate=1e9", code=1)
    answer = prunec("export", runs / "tiny-001", code=1)
    assert "is not fully trained" in answer.errors
    assert "prunec train --resume" in answer.errors


@pytest.mark.slow
def test_divergence_keeps_the_last_good_state(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = loop.learning_rate

    def explode(train: Any, step: int, steps_per_epoch: int) -> float:
        return 1e30 if step >= 2 * steps_per_epoch else usual(train, step, steps_per_epoch)

    monkeypatch.setattr(loop, "learning_rate", explode)
    answer = prunec("train", work / "tiny.toml", "--runs", work / "diverged", code=1)
    run = RunFolder(work / "diverged" / "tiny-001")
    assert "training diverged" in answer.errors
    assert "epoch 3" in answer.errors
    assert "lower train.learning_rate" in answer.errors
    assert str(run.checkpoint) in answer.errors
    assert (run.checkpoint / "epoch-002" / "checkpoint.json").is_file()
    assert run.status == "failed"


@pytest.mark.slow
def test_another_seed_gives_other_weights(trained: RunFolder, work: Path) -> None:
    runs = work / "seeds"
    changes = ("--set", "seed=4", "--set", "train.epochs=3")
    prunec("train", work / "tiny.toml", "--runs", runs, *changes)
    run = RunFolder(runs / "tiny-001")
    assert run.recipe.seed == 4
    assert run.recipe.train.epochs == 3
    assert weights_of(run) != weights_of(trained)


def test_what_cannot_be_written_is_said(exported: tuple[RunFolder, Answer], work: Path) -> None:
    run, _ = exported
    before = run.export.shipped("onnx", ".onnx").read_bytes()
    target = work / "tiny.toml" / "model.onnx"
    answer = prunec("export", run.path, "-o", target, code=1)
    assert f"{target} cannot be written" in answer.errors
    assert "remedy" in answer.errors
    answer = prunec("export", run.path, "-o", work, code=1)
    assert f"{work} cannot be written" in answer.errors
    assert "remove-channels" not in answer.text, "it was seen before the work"
    assert run.export.shipped("onnx", ".onnx").read_bytes() == before
    answer = prunec("train", work / "tiny.toml", "--runs", work / "tiny.toml", code=1)
    assert "no run folder can be created" in answer.errors


@pytest.mark.slow
def test_a_latency_budget_is_measured_and_kept(
    exported: tuple[RunFolder, Answer], tmp_path: Path
) -> None:
    """A file a thousand times slower than allowed fails, whatever the clock does."""
    run, _ = exported
    strict = RunFolder(tmp_path / "fast-001")
    shutil.copytree(run.path, strict.path)
    restate(strict, "latency_ratio = false", "latency_ratio = 0.001")
    answer = prunec("verify", strict.path, "--json", code=2)
    failures = [
        c["name"] for c in json.loads(answer.text)["forms"]["onnx"]["checks"] if not c["passed"]
    ]
    assert "budget: latency / dense" in failures
    assert torch.get_num_threads() == 1


@pytest.mark.slow
def test_a_bit_flipped_in_trained_weights_ships_nothing_and_is_trained_again(
    trained: RunFolder, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "tiny-001")
    shutil.copytree(trained.path, run.path, ignore=shutil.ignore_patterns(".lock", "export"))
    weights = run.step(0, "train-gdp") / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    answer = prunec("export", run.path, code=1)
    assert "weights.safetensors is damaged" in answer.errors
    assert f"prunec train --resume {run.path}" in answer.errors
    assert not run.export.shipped("onnx", ".onnx").exists()
    assert "weights.safetensors is damaged" in prunec("train", "--resume", run.path).text
    assert weights.read_bytes() == (trained.step(0, "train-gdp") / weights.name).read_bytes()
