"""`prunec inspect` against the network that it looks at."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from masks import masked, structured_output_masks
from rich.console import Console
from sampling import slow_but
from typer.testing import CliRunner
from zoo import ZOO

from prunec.artifact import Artifact
from prunec.cli.commands import app
from prunec.cost.torch_graph import count
from prunec.graph.rewriting.compile import compile_module
from prunec.inspection.layer_tree import layer_tree
from prunec.inspection.layers import Layer
from prunec.inspection.network import Inspection, inspect_module, inspection_tables
from prunec.passes.remove_channels import RemoveChannels
from prunec.tables import as_text

NETS = ["residual", "grouped", "transposed", "depthwise", "concat"]
every = pytest.mark.parametrize("name", slow_but(NETS, "grouped"))


@lru_cache
def looked_at(name: str) -> tuple[Inspection, torch.nn.Module]:
    """A masked network cut twice, by plan after plan, and what inspect says of it."""
    module, example = ZOO[name]()
    artifact = Artifact(module, example)
    for seed in (1, 2):
        masks = structured_output_masks(artifact.module, 0.7, seed)
        zeroed = masked(artifact.module, masks)
        made = compile_module(zeroed, example)
        artifact = Artifact(made.module, example, plans=(*artifact.plans, made.plan))
    seen = inspect_module("net", module, example, now=artifact.module, plans=artifact.plans)
    return seen, artifact.module


@every
def test_what_is_left_is_what_the_cut_network_has(name: str) -> None:
    seen, left = looked_at(name)
    _, example = ZOO[name]()
    assert seen.cost == count(left, example)
    assert sum(layer.macs[0] for layer in seen.layers) == seen.cost.macs
    assert sum(layer.macs[1] for layer in seen.layers) == seen.dense.macs > seen.cost.macs
    for layer in seen.layers:
        if layer.params[0] and layer.inputs and layer.outputs:
            weight = left.get_submodule(layer.name).weight
            groups = getattr(left.get_submodule(layer.name), "groups", 1)
            assert layer.inputs[0] * layer.outputs[0] * weight[0, 0].numel() == (
                weight.numel() * groups
            )


@every
def test_kept_channels_of_a_group_are_those_of_its_parameters(name: str) -> None:
    """A vector that one group cuts alone is as long as what is left of the group."""
    seen, left = looked_at(name)
    tensors = left.state_dict()
    owners: dict[str, int] = {}
    for group in seen.groups:
        for member in group.members:
            owners[member] = owners.get(member, 0) + 1
    checked = 0
    for group in seen.groups:
        for member in group.members:
            if owners[member] == 1 and member in tensors and tensors[member].dim() == 1:
                assert len(tensors[member]) == group.kept, (group.name, member)
                checked += 1
    assert checked
    assert any(group.removed for group in seen.groups)


def test_a_dense_network_is_whole_and_says_what_is_refused() -> None:
    module, example = ZOO["chain"]()
    seen = inspect_module("chain", module, example)
    assert seen.cost == seen.dense
    assert all(group.kept == group.size for group in seen.groups)
    assert set(seen.refusals) == {"network output"}
    assert json.loads(seen.to_json())["layers"][0]["inputs"] == {"kept": 3, "total": 3}


def test_the_tree_adds_up_and_shares_lines() -> None:
    names = ["a.b.0", "a.b.1", "c.only.child", "d"]
    layers = [Layer(n, "conv2d", None, None, (1, 2), (3, 4), 3) for n in names]
    tree = layer_tree(layers)
    assert (tree.macs, tree.params, tree.nonzero_params) == ((4, 8), (12, 16), 12)
    assert [label for label, _ in tree.rows()] == [
        "├─ a.b",
        "│  ├─ 0",
        "│  └─ 1",
        "├─ c.only.child",
        "└─ d",
    ]


@pytest.mark.parametrize("width", ["60", "80", "120"])
def test_no_line_is_wider_than_the_terminal(width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", width)
    module, example = ZOO["residual"]()
    seen = inspect_module("residual", module, example)
    long = dataclasses.replace(
        seen,
        layers=tuple(dataclasses.replace(x, name=f"{'block' * 9}.{x.name}") for x in seen.layers),
    )
    for shown in (seen, long):
        text = as_text(*inspection_tables(shown))
        assert max(map(len, text.splitlines())) <= int(width) == Console().width
        assert f"{seen.cost.macs:,}" in text


@pytest.mark.slow
def test_a_network_by_name_at_another_size() -> None:
    result = CliRunner().invoke(app, ["inspect", "squeezenet1_1", "--input", "1x48x48", "--json"])
    assert result.exit_code == 0, result.output
    seen = json.loads(result.stdout)
    assert seen["inputs"] == [{"shape": [2, 1, 48, 48], "dtype": "float32"}]
    stem = seen["layers"][0]
    assert (stem["name"], stem["inputs"]["total"]) == ("features.0", 1)
    assert stem["macs"]["total"] == 64 * 9 * 23 * 23


@pytest.mark.parametrize(
    ("arguments", "actual", "remedy"),
    [
        (
            ["squeezenet1_1", "--input", "3x4x4"],
            "squeezenet1_1 does not take an input of 3×4×4",
            "--input",
        ),
        (["squeezenet1_2"], "is not a classifier", "Did you mean 'squeezenet1_"),
        (["no.such.module:net"], "cannot be imported", "PYTHONPATH"),
    ],
)
def test_bad_input_is_explained(arguments: list[str], actual: str, remedy: str) -> None:
    result = CliRunner().invoke(app, ["inspect", *arguments])
    assert result.exit_code == 1
    assert actual in result.stderr
    assert remedy in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["mynte:net", "--input", "3x8x8"], "mynet"),
        (["resnet18", "--weights", "prunde.pt"], "pruned.pt"),
        (["resnet18", "--weights", "sub/prunned.pt"], "sub/pruned.pt"),
    ],
)
def test_the_nearest_of_ones_own_files_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], near: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for name in ("mynet.py", "pruned.pt", "sub/pruned.pt"):
        Path(name).touch()
    result = CliRunner().invoke(app, ["inspect", *arguments])
    assert result.exit_code == 1
    assert f"Did you mean {near!r}?" in result.stderr


SHOP = """
from torch import nn

def net(num_classes):
    import shelf  # only when it is called
    return nn.Sequential(nn.Conv2d(3, shelf.WIDTH, 3), nn.Flatten(), nn.LazyLinear(num_classes))
"""


@pytest.mark.slow
def test_a_network_in_the_working_directory_is_found(tmp_path: Path) -> None:
    """By the console script too, whose path does not begin there; a package goes before it."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "shelf.py").write_text("WIDTH = 5")
    (tmp_path / "torchvision.py").write_text("raise AssertionError")
    program = [sys.executable, "-P", "-c", "from prunec.cli.commands import main; main()"]
    command = [*program, "inspect", "shop:net", "--input", "3x8x8", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["layers"][0]["outputs"]["total"] == 5


def test_remove_channels_tells_what_the_report_tells() -> None:
    module, example = ZOO["chain"]()
    zeroed = masked(module, structured_output_masks(module, 0.5, 1))
    step = RemoveChannels()(Artifact(zeroed, example)).history[-1]
    assert step.details["removed"] == compile_module(zeroed, example).removed
