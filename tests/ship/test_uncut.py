"""A network of which nothing was cut is its own dense network: no second file, no time beside."""

from __future__ import annotations

import copy
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from senders import exported, run
from ship_nets import tiny
from torch import nn

from prunec.graph.rewriting.alike import alike
from prunec.graph.rewriting.fold_batch_norms import fold_batch_norms

EXAMPLE = (torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)),)
CODE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))

def cut():
    net = build()
    net[0].weight.data[0] = net[0].bias.data[0] = 0
    return net
"""
RECIPE = """
name = "whole"
[model]
name = "a_whole_network:build"
input = ["1x6x6"]
[data]
name = "none"
[[pass]]
name = "remove-channels"
[[pass]]
name = "fold-batchnorm"
[verify.budget]
latency_ratio = 1.0
"""
INSTALLED = importlib.util.find_spec("openvino") is not None
RATIO = "budget: latency / dense"


def folded(seed: int, change: Callable[[nn.Module], None] = lambda _: None) -> nn.Module:
    module = tiny(seed)
    change(module)
    return fold_batch_norms(module, EXAMPLE)[0]


def of_zeros(share: float) -> Callable[[nn.Module], None]:
    """Set a share of one kernel's weights, at least one of them, to zero."""

    def change(module: nn.Module) -> None:
        weight = module[6].weight.data.view(-1)  # type: ignore[index]
        weight[: max(1, round(share * len(weight)))] = 0

    return change


def stride(module: nn.Module) -> None:
    module[3].stride = (1, 1)  # type: ignore[index]


def narrower(module: nn.Module) -> None:
    module[6], module[9] = nn.Conv2d(8, 12, 1), nn.Linear(12, 4)  # type: ignore[operator]


def other_activation(module: nn.Module) -> None:
    module[5] = nn.Hardswish()  # type: ignore[operator]


def subnormal(module: nn.Module) -> None:
    module[6].weight.data[0] = 1e-40  # type: ignore[index]


def test_networks_are_alike_by_graph_shapes_and_zeros_not_by_values() -> None:
    dense = folded(0)
    assert alike(dense, folded(1))
    for change in (of_zeros(0.01), of_zeros(0.5), stride, narrower, other_activation, subnormal):
        assert not alike(folded(0, change), dense), change
    assert alike(dense, folded(0, of_zeros(0.5))), "a dense network may start from zeros"
    assert not alike(tiny(0), tiny(0)), "the forward of a module is not known"
    other_kind = copy.deepcopy(dense).double()
    assert not alike(other_kind, dense)


def details(folder: Path, form: str) -> tuple[dict[str, Any], dict[str, Any]]:
    report = json.loads((folder / "export/report.json").read_text())["forms"][form]
    return {check["name"]: check for check in report["checks"]}, report["details"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that cut nothing, and one that cut a channel."""
    folder = tmp_path_factory.mktemp("uncut")
    further = ("--openvino",) if INSTALLED else ()
    exported(folder, "a_whole_network", CODE, RECIPE, "--packed", *further)
    lean = RECIPE.replace('"whole"', '"lean"').replace(":build", ":cut").replace("1.0", "50")
    exported(folder, "a_whole_network", CODE, lean)
    return folder / "runs"


@pytest.fixture(autouse=True)
def _beside(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    monkeypatch.syspath_prepend(str(root.parent))


@pytest.mark.slow
@pytest.mark.parametrize(
    "form",
    ["onnx", "packed", pytest.param("openvino", marks=pytest.mark.skipif(
        not INSTALLED, reason="openvino is not installed"))],
)  # fmt: skip
def test_nothing_is_written_or_timed_twice(root: Path, form: str) -> None:
    checks, facts = details(root / "whole-001", form)
    assert not list((root / "whole-001/export").glob("*/dense"))
    assert (checks[RATIO]["found"], checks[RATIO]["passed"]) == (1.0, True)
    assert facts["uncut"]
    assert facts["bytes"] == facts["dense bytes"]
    assert "latency" not in facts
    manifest = json.loads((root / "whole-001/export/manifest.json").read_text())
    assert manifest["onnx"]["dense_sha256"] == manifest["onnx"]["sha256"]
    page = (root / "whole-001/report.html").read_text()
    assert "nothing was cut: the dense network is the same file" in page


@pytest.mark.slow
def test_verify_and_bench_take_the_file_for_the_dense_network(root: Path) -> None:
    told = run("verify", "whole-001", "--json")
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["forms"]["onnx"]["details"]["uncut"]
    told = run("bench", "whole-001", "--batch", "1")
    assert told.exit_code == 0, told.output
    told = run("count", "whole-001", "--memory", "--json")
    assert told.exit_code == 0, told.output


@pytest.mark.slow
def test_a_file_as_fast_as_itself_breaks_a_budget_below_1(root: Path) -> None:
    strict = RECIPE.replace("latency_ratio = 1.0", "latency_ratio = 0.5")
    Path("strict.toml").write_text(strict.replace('"whole"', '"strict"'))
    told = run("export", "strict.toml", "--json")
    assert told.exit_code == 2, told.output
    (failed,) = [c for c in json.loads(told.stdout)["forms"]["onnx"]["checks"] if not c["passed"]]
    assert failed["name"] == RATIO
    assert "nothing was cut" in failed["message"]


@pytest.mark.slow
def test_a_missing_dense_file_is_not_taken_for_nothing_cut(root: Path) -> None:
    checks, facts = details(root / "lean-001", "onnx")
    dense = root / "lean-001/export/onnx/dense/model.onnx"
    assert "uncut" not in facts
    assert checks[RATIO]["passed"]
    held = dense.read_bytes()
    dense.unlink()
    forms = json.loads(run("verify", "lean-001", "--json").stdout)["forms"]["onnx"]
    assert "uncut" not in forms["details"]
    assert [c["name"] for c in forms["checks"] if not c["passed"]] == ["manifest"]
    dense.write_bytes(held)
    assert run("verify", "lean-001").exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("option", [("--no-recipe",), ("--opset", 17)])
@pytest.mark.parametrize("name", ["whole", "lean"])
def test_another_export_of_one_form_leaves_the_others_proven(
    root: Path, name: str, option: tuple[object, ...], tmp_path: Path
) -> None:
    """Their dense network did not change; verify takes an opset that the recipe does not name."""
    again = tmp_path / name
    shutil.copytree(root / f"{name}-001", again)
    assert run("export", again, "--packed").exit_code == 0
    assert run("export", again, *option).exit_code == 0
    answer = run("verify", again)
    assert answer.exit_code == 0, answer.output


@pytest.mark.slow
def test_a_replaced_file_is_not_taken_for_the_dense_network(root: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(root / "whole-001", again)
    shutil.copy(root / "lean-001/export/onnx/model.onnx", again / "export/onnx/model.onnx")
    answer = run("bench", again, "--batch", 1)
    assert answer.exit_code == 1
    assert "is not the file that was exported" in " ".join(answer.output.split())
    answer = run("verify", again)
    assert answer.exit_code == 2
    assert "latency against dense: it was not measured" in " ".join(answer.output.split())


def test_a_latency_on_no_runner_is_refused_before_work(tmp_path: Path) -> None:
    recipe = RECIPE.replace("latency_ratio = 1.0", "latency_ms = { ncn = 5.0 }")
    Path("slow.toml").write_text(recipe.replace('"whole"', '"slow"'))
    answer = run("export", "slow.toml")
    assert answer.exit_code == 1
    assert "Did you mean 'ncnn'" in answer.output
    assert not list(Path("runs").glob("slow*"))
