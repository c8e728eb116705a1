"""Refusals of the public functions, with their remedies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from api_nets import EXAMPLE, small
from torch import nn

import prunec
from prunec.errors import PrunecError, RunError

WEIGHT = "0.0.weight"
MASK = torch.ones(8, 3, 3, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("model", "example", "options", "message"),
    [
        ("net", EXAMPLE, {}, "the model is of type str, not a torch.nn.Module"),
        (nn.ReLU, EXAMPLE, {}, "the model is the class ReLU"),
        (small(), [], {}, "example_inputs is empty"),
        (small(), {"x": EXAMPLE}, {}, "is of type dict, not a tensor"),
        (small(), (EXAMPLE, 3), {}, "example_inputs[1] is of type int"),
        (small(), torch.zeros(()), {}, "without a batch axis"),
        (small(), EXAMPLE[:0], {}, "it has no sample"),
        (small(), EXAMPLE.to("meta"), {}, "is on meta, the network on cpu"),
        (small(), EXAMPLE, {"masks": [MASK]}, "masks is of type list"),
        (small(), EXAMPLE, {"masks": {"0.0.weigth": MASK}}, "Did you mean '0.0.weight'?"),
        (small(), EXAMPLE, {"masks": {WEIGHT: MASK.float()}}, "is torch.float32, not a bool"),
        (small(), EXAMPLE, {"masks": {WEIGHT: [True]}}, "is list, not a bool tensor"),
        (small(), EXAMPLE, {"masks": {WEIGHT: MASK[:3]}}, "(3, 3, 3, 3), the parameter (8, 3,"),
        (small(), EXAMPLE, {"round_to": 0}, "round_to = 0 is not"),
        (small(), EXAMPLE, {"round_to": 1.5}, "round_to = 1.5 is not"),
        (small(), EXAMPLE, {"round_to": True}, "round_to = True is not"),
    ],
)
def test_wrong_arguments_are_named_with_a_remedy(
    model: Any, example: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(PrunecError) as caught:
        prunec.compile(model, example, **options)
    assert message in str(caught.value)
    assert caught.value.remedy


def test_a_run_is_verified_by_a_function_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(PrunecError, match="verify_run"):
        prunec.verify(tmp_path, tmp_path / "net.onnx", example_inputs=EXAMPLE)  # type: ignore[arg-type]
    with pytest.raises(PrunecError, match="not a run folder"):
        prunec.verify_run(tmp_path)


def test_a_file_that_is_not_there_fails_a_check(tmp_path: Path) -> None:
    report = prunec.verify(small(), tmp_path / "net.onnx", example_inputs=EXAMPLE)
    assert [check.name for check in report.failures] == ["readable"]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        prunec.export_onnx(small(), EXAMPLE, tmp_path / "file" / "net.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
