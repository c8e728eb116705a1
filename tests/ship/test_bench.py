"""prunec bench on two files: what it prints, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from test_latency import convolutions
from typer.testing import CliRunner

from prunec.cli.commands import app
from prunec.cost.onnx_graph import count_onnx
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.deploy.sessions import layer_times
from prunec.errors import PrunecError
from prunec.pipeline.measuring import told_apart


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunec.deploy.timing._SECONDS", 0.3)


def bench(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


@pytest.mark.slow
def test_json_holds_what_the_ratio_follows_from(tmp_path: Path, quick: None) -> None:
    small = convolutions(tmp_path / "small.onnx", 3, 8, 8)
    large = convolutions(tmp_path / "large.onnx", 3, 48, 48)
    answer = bench(small, large, "--batch", "1,2", "--threads", "2", "--layers", "--json",
                   "--plot", tmp_path / "bars.svg")  # fmt: skip
    assert answer.exit_code == 0, answer.output
    content = json.loads(answer.stdout)
    assert [(m["batch"], m["threads"]) for m in content["measurements"]] == [
        (1, 2), (2, 2),
    ]  # fmt: skip
    for m in content["measurements"]:
        ours, theirs = np.array(m["rounds"]).T
        assert m["ratio"] == pytest.approx(float(np.median(ours / theirs)))
        assert m["shipped"]["median_ms"] == pytest.approx(float(np.median(ours)))
        rate = 1e3 * m["batch"] / m["dense"]["median_ms"]
        assert m["dense"]["samples_per_second"] == pytest.approx(rate)
        assert m["dense"]["macs_per_second"] == pytest.approx(rate * count_onnx(large).macs)
    assert content["files"] == {"shipped": "small.onnx", "dense": "large.onnx"}
    assert ">small.onnx " in (tmp_path / "bars.svg").read_text()
    assert content["memory"]["shipped"]["peak"] >= content["memory"]["shipped"]["loaded"] > 0
    for side in ("shipped", "dense"):
        assert sum(layer["operator"] == "Conv" for layer in content["layers"][side]) == 2
    assert (tmp_path / "bars.svg").read_text().startswith("<svg")


def test_the_table_fits_and_says_what_the_ratio_is(tmp_path: Path, quick: None) -> None:
    file = convolutions(tmp_path / "file.onnx", 3, 8)
    answer = bench(file, file, "--batch", "4")
    assert answer.exit_code == 0, answer.output
    assert max(map(len, answer.stdout.splitlines())) <= 80
    assert "median of" in answer.stdout
    assert "samples/s (batch 4, 1 thread)" in answer.stdout


def test_files_of_no_run_are_named(tmp_path: Path, quick: None) -> None:
    """In the order in which they are given, and told apart if they have one name."""
    (tmp_path / "old").mkdir()
    small = convolutions(tmp_path / "small_but_of_a_long_name.onnx", 3, 8)
    large = convolutions(tmp_path / "large.onnx", 3, 16)
    answer = bench(small, large, "--batch", "1", "--layers")
    assert answer.exit_code == 0, answer.output
    words = " ".join(answer.stdout.split())
    assert max(map(len, answer.stdout.splitlines())) <= 80
    assert words.index("small_but_of") < words.index("large.onnx, ms")
    assert "small_but_of_a_long_name.onnx / large.onnx" in words
    assert "large.onnx: at most" in words
    assert "large.onnx: the slowest of" in words
    assert "dense" not in words
    assert "shipped" not in words
    one, other = Path("a/m.onnx"), Path("b/m.onnx")
    assert told_apart(one, Path("n.onnx")) == ("m.onnx", "n.onnx")
    assert told_apart(one, other) == (str(one), str(other))
    assert told_apart(one, one) == ("m.onnx (1)", "m.onnx (2)")


def test_open_sizes_are_given_and_wrong_ones_are_refused(tmp_path: Path, quick: None) -> None:
    file = convolutions(tmp_path / "open.onnx", 3, 8, size="width")
    assert "--input NAME=1x3x224x224" in bench(file, file).output
    answer = bench(file, file, "--input", "x0=2x3x24x16", "--json")
    assert [m["batch"] for m in json.loads(answer.stdout)["measurements"]] == [2]
    for wrong, word in {
        "x0=2x4x24x16": "does not fit", "x0=2x3x24": "does not fit", "y=1x3": "Inputs are: x0",
        "x0": "does not name an input with its sizes",
    }.items():  # fmt: skip
        answer = bench(file, file, "--input", wrong)
        assert answer.exit_code == (1 if "=" in wrong else 3), wrong
        assert word in " ".join(answer.output.split())


@pytest.mark.parametrize(
    ("arguments", "word", "code"),
    [(("a.onnx",), "compares two files", 3), (("a.onnx", "b.onnx", "c.onnx"), "found 3", 3),
     (("a.onnx", "b.onnx", "--batch", "0"), "must be a list of whole numbers", 3),
     (("a.onnx", "b.onnx", "--plot", "a.png"), "Name it a.svg", 3),
     (("a.onnx", "b.onnx"), "there is no file a.onnx", 1)],
)  # fmt: skip
def test_a_wrong_line_is_reported(arguments: tuple[str, ...], word: str, code: int) -> None:
    answer = bench(*arguments)
    assert answer.exit_code == code
    assert word in " ".join(answer.output.split())


def test_inputs_are_of_the_types_that_the_file_states(tmp_path: Path) -> None:
    ids = onnx.helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["n", 3])
    out = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.DOUBLE, None)
    node = onnx.helper.make_node("Cast", ["ids"], ["out"], to=onnx.TensorProto.DOUBLE)
    graph = onnx.helper.make_graph([node], "cast", [ids], [out])
    path = tmp_path / "ids.onnx"
    onnx.save(onnx.helper.make_model(graph, ir_version=10), path)
    loaded = Onnxruntime().open(path)
    (noise,) = loaded.noise(4)
    assert (noise.dtype, noise.shape) == (np.dtype(np.int64), (4, 3))
    with pytest.raises(PrunecError, match="cannot run"):
        loaded.profile([noise.astype(np.float32)])


def test_a_profile_is_read_into_layers_without_the_first_run() -> None:
    def event(name: str, place: int, duration: int, operator: str = "Conv") -> dict[str, Any]:
        arguments = {"node_index": str(place), "op_name": operator}
        return {"cat": "Node", "name": name, "dur": duration, "args": arguments}

    events = [
        {"cat": "Session", "name": "model_run", "dur": 9, "args": {}},
        *(event("a_kernel_time", 1, t) for t in (900, 10, 30, 20)),
        *(event("a_fence_before", 1, t) for t in (5, 5)),
        *(event("b_kernel_time", 2, t, "Relu") for t in (4000, 2000)),
    ]
    assert [(x.name, x.operator, x.milliseconds) for x in layer_times(events)] == [
        ("a", "Conv", 0.02), ("b", "Relu", 2.0),
    ]  # fmt: skip
