"""`prunec count`: a file and the network that it was written from cost the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torchvision
from typer.testing import CliRunner

import prunec
from prunec.cli.commands import app

SIZES = ["--input", "3x64x64"]


def counted(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["count", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_a_file_costs_what_its_network_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torchvision.models.squeezenet1_1(num_classes=3).eval()
    with torch.no_grad():
        net.features[0].weight[::2] = 0
    weights, file = str(tmp_path / "w.pth"), str(tmp_path / "net.onnx")
    torch.save(net.state_dict(), weights)
    prunec.export_onnx(net, torch.zeros(2, 3, 64, 64), file)
    ours = json.loads(counted("squeezenet1_1", "--weights", weights, *SIZES, "--json"))
    theirs = json.loads(counted(file, "--json"))
    for key in ("macs", "nonzero_macs", "params", "nonzero_params"):
        assert ours[key] == theirs[key]
    assert ours["nonzero_macs"] < ours["macs"]
    assert sum(layer["macs"] for layer in ours["layers"]) == ours["macs"]


def test_the_table_ends_with_the_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = counted("squeezenet1_1", *SIZES)
    macs = json.loads(counted("squeezenet1_1", *SIZES, "--json"))["macs"]
    assert "total" in text
    assert f"{macs:,}" in text
    assert max(map(len, text.splitlines())) <= 80
