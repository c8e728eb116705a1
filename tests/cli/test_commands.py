"""The commands: what they ask of the pipeline, print and end with."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from fake_pipeline import RECIPE, FakePipeline, run

from prunec.errors import Diverged, ParityError
from prunec.graph.rewriting.plan import Input
from prunec.recipe import loads
from prunec.store.finding import latest_run
from prunec.store.runs import RunFolder


def test_train_makes_a_run_and_says_what_comes_next(pipeline: FakePipeline) -> None:
    result = run("train", "small.toml", "--set", "train.epochs=3", "--device", "cpu")
    assert result.exit_code == 0, result.output
    made = latest_run(Path("runs"))
    assert made.path == Path("runs/small-001")
    [(_, (recipe, given), keys)] = pipeline.calls
    assert recipe == made.recipe
    assert recipe.train.epochs == 3
    assert given == made
    assert keys["device"] == "cpu"
    assert keys["resume"] is False
    assert made.status == "trained"
    assert "runs/small-001" in result.stdout
    assert "prunec export --onnx" in result.stdout
    assert "100 → 50 (50.0 %)" in result.stdout


def test_the_device_is_the_recipes_unless_named(pipeline: FakePipeline) -> None:
    run("train", "small.toml")
    run("train", "small.toml", "--set", "device=cuda")
    assert [keys["device"] for _, _, keys in pipeline.calls] == ["auto", "cuda"]
    assert run("train", "small.toml", "--device", "tpu").exit_code == 3


def test_runs_lie_where_option_or_variable_say(
    pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("train", "small.toml", "--runs", "a/b").exit_code == 0
    monkeypatch.setenv("PRUNEC_RUNS", "c")
    assert run("train", "small.toml").exit_code == 0
    assert Path("a/b/small-001/run.json").is_file()
    assert Path("c/small-001/run.json").is_file()


def test_ctrl_c_leaves_a_run_that_continues(pipeline: FakePipeline) -> None:
    pipeline.error = KeyboardInterrupt()
    stopped = run("train", "small.toml")
    assert stopped.exit_code == 130
    assert "prunec train --resume runs/small-001" in stopped.stderr
    assert "Traceback" not in stopped.output
    assert latest_run(Path("runs")).status == "interrupted"
    pipeline.error = None
    for again in (["runs/small-001"], [], ["small"], ["small.toml"]):
        RunFolder(Path("runs/small-001")).mark("interrupted")
        assert run("train", "--resume", *again).exit_code == 0
        assert pipeline.calls[-1][2]["resume"] is True
        assert pipeline.calls[-1][1][1].path.name == "small-001"


def test_ctrl_c_elsewhere_ends_without_a_traceback(pipeline: FakePipeline) -> None:
    run("train", "small.toml")
    pipeline.error = KeyboardInterrupt()
    result = run("export")
    assert result.exit_code == 130
    assert result.stderr == "error: interrupted\n"


def test_a_failed_training_is_marked_and_explained(pipeline: FakePipeline) -> None:
    pipeline.error = Diverged("the loss is nan at epoch 1", remedy="Lower train.learning_rate.")
    result = run("train", "small.toml")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: the loss is nan at epoch 1\nremedy: Lower train.learning_rate.\n"
    )
    assert latest_run(Path("runs")).status == "failed"


def test_a_wrong_recipe_leaves_no_run(folder: Path) -> None:
    (folder / "small.toml").write_text(RECIPE.replace("train-dense", "train-densely"))
    result = run("train", "small.toml")
    assert result.exit_code == 1
    assert "there is no pass 'train-densely'" in result.stderr
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("arguments", [["export"], ["export", "--onnx", "small-001"]])
def test_export_takes_the_latest_run_or_one(pipeline: FakePipeline, arguments: list[str]) -> None:
    run("train", "small.toml")
    result = run(*arguments, "-o", "out.onnx")
    assert result.exit_code == 0, result.output
    assert "passed: True" in result.stdout
    name, (given, output, forms), _ = pipeline.calls[-1]
    assert (name, given.path.name, output) == ("export", "small-001", Path("out.onnx"))
    assert pipeline.options == {}
    assert run("export", "small-001", "--opset", "13", "--ir-version", "7").exit_code == 0
    assert pipeline.options == {"onnx": {"opset": 13, "ir_version": 7}}
    assert forms == (("onnx",) if "--onnx" in arguments else ())


def test_a_failed_gate_exits_with_two(pipeline: FakePipeline) -> None:
    run("train", "small.toml")
    pipeline.passed = False
    assert run("export").exit_code == 2
    assert run("verify").exit_code == 2
    spoiled = run("verify", "--json", "--onnx", "spoiled.onnx")
    assert spoiled.exit_code == 2
    assert json.loads(spoiled.stdout) == {"passed": False}
    assert pipeline.calls[-1][1][1] == Path("spoiled.onnx")
    pipeline.error = ParityError("not equal")
    assert run("verify").exit_code == 2


def test_inspect_shows_layers_and_groups(pipeline: FakePipeline) -> None:
    result = run("inspect", "resnet18")
    assert result.exit_code == 0, result.output
    assert pipeline.calls[-1][1] == ("resnet18", ())
    for text in ("stem.0", "1,500", "100.0 %", "75.0 %", "12/16", "stem, head", "pinned: output"):
        assert text in result.stdout
    seen = json.loads(run("inspect", "resnet18", "--json").stdout)
    assert seen["cost"]["layers"][0]["macs"] == seen["cost"]["macs"] == 1500
    assert seen["groups"][1]["pinned"] == "output"
    assert seen["refusals"] == {"output": 10}


def test_inspect_takes_inputs_by_their_sizes(pipeline: FakePipeline) -> None:
    assert run("inspect", "net", "--input", "1x28x28", "--input", "16:int64").exit_code == 0
    assert pipeline.calls[-1][1][1] == (Input((2, 1, 28, 28), "float32"), Input((2, 16), "int64"))
    for wrong in ("1x", "0x3", "3x3:float33", "3x3:nn", ""):
        result = run("inspect", "net", "--input", wrong)
        assert result.exit_code == 3
        assert "is not an input" in result.stderr
        assert "3x224x224" in result.stderr


def test_inspect_prefers_a_run(pipeline: FakePipeline) -> None:
    run("train", "small.toml")
    for arguments in ([], ["small-001"], ["runs/small-001"], ["small"]):
        assert run("inspect", *arguments).exit_code == 0
        assert pipeline.calls[-1][1][0].path.name == "small-001"


@pytest.mark.parametrize(
    ("number", "text"), [(errno.ENOSPC, "Free some space"), (errno.EROFS, "can be written")]
)
def test_a_full_or_read_only_disk_is_explained(
    pipeline: FakePipeline, number: int, text: str
) -> None:
    run("train", "small.toml")
    pipeline.error = OSError(number, os.strerror(number), "/mnt/model.onnx")
    result = run("export")
    assert result.exit_code == 1
    assert f"/mnt/model.onnx: {os.strerror(number).lower()}" in result.stderr
    assert text in result.stderr


def test_the_terminal_gets_lines_that_can_be_copied_without_markup(
    pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    pipeline.error = Diverged("pass[0] is [red]", remedy="Mend it.")
    result = run("train", "small.toml")
    assert "│" not in result.stderr
    assert "pass[0] is [red]" in result.stderr
    assert "Mend it." in result.stderr


def test_a_recipe_of_a_run_is_the_one_that_ran(pipeline: FakePipeline) -> None:
    run("train", "small.toml", "--set", "seed=7")
    text = Path("runs/small-001/recipe.toml").read_text()
    assert loads(text).seed == 7
