"""A form and what each runner made of it, as one table on the screen and on the page."""

from __future__ import annotations

import pytest

from prunec.cli.results import Ending
from prunec.deploy.checks import Check, ExportReport, Report
from prunec.deploy.checks.by_runner import form_row, runners_of
from prunec.deploy.checks.details import Details
from prunec.deploy.runner import Identity


def check(name: str, *, passed: bool = True) -> Check:
    return Check(name, 0, 0, None, passed, "" if passed else "it differs")


ORT, VINO = (Identity(name, "1.0", "CPU, f32") for name in ("onnxruntime", "openvino"))


def test_a_failure_is_that_of_the_runner_whose_name_it_bears() -> None:
    checks = [check("readable"), check("openvino: outputs, random", passed=False)]
    row = form_row("onnx", 10, "onnxruntime", ["openvino"], checks)
    assert row.outcomes == {"onnxruntime": True, "openvino": False}
    budget = [*checks, check("budget: MACs / dense", passed=False)]
    row = form_row("onnx", 10, "onnxruntime", ["openvino"], budget)
    assert row.outcomes == {"onnxruntime": False, "openvino": False}
    assert runners_of([form_row("ncnn", 1, "ncnn", [], []), row]) == (
        "ncnn", "onnxruntime", "openvino",
    )  # fmt: skip


def test_several_forms_end_with_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    onnx = Report((check("readable"),), Details(bytes=20_000, runner=ORT, other_runners=(VINO,)))
    vino = Report((check("readable"),), Details(bytes=21_000, runner=VINO))
    Ending().end(ExportReport({"onnx": onnx, "openvino": vino}))
    lines = capsys.readouterr().out.splitlines()
    assert any("Forms, by runner" in line for line in lines)
    row = next(line for line in lines if "openvino" in line and "21" in line)
    assert [part.strip() for part in row.strip("│").split("│")][2:] == ["—", "✓"]
    Ending().end(ExportReport({"openvino": vino}))
    unknown = Report((check("readable"),))
    Ending().end(ExportReport({"bundle": unknown, "onnx": unknown}))
    assert "by runner" not in capsys.readouterr().out
