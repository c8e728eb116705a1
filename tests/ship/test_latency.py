"""Latency is compared fairly, and a slow file is told why."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from ship_nets import Shipped

from prunec.deploy.alignment import alignment, remedy
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.deploy.timing import (
    CONFIDENCE,
    MARGIN,
    Latency,
    Timer,
    in_turns,
    median_interval,
)
from prunec.errors import PrunecError


def convolutions(path: Path, *channels: int, size: int | str = 24) -> Path:
    """Write a chain of 3×3 convolutions with these channel counts, the image's first."""
    nodes, weights = [], []
    for i, (inputs, outputs) in enumerate(pairwise(channels)):
        kernel = np.full((outputs, inputs, 3, 3), 0.01, np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{i}"))
        nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"], pads=[1] * 4))
    shape, made = ["batch", channels[0], 24, size], ["batch", channels[-1], 24, size]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, made)],
        weights,
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def compare_latency(shipped: Path, dense: Path, *, rounds: int = 31) -> Latency:
    runner = Onnxruntime()
    return runner.open(shipped).time(runner.open(dense), rounds=rounds)


@pytest.mark.slow
def test_a_file_is_as_fast_as_itself(shipped: Shipped) -> None:
    actual = compare_latency(shipped.path, shipped.path, rounds=15)
    assert 0.6 < actual.ratio < 1.6
    assert actual.shipped_ms > 0


def test_sixteen_times_the_work_is_slower(tmp_path: Path) -> None:
    small = convolutions(tmp_path / "small.onnx", 3, 32, 32, 32)
    large = convolutions(tmp_path / "large.onnx", 3, 128, 128, 128)
    actual = compare_latency(small, large, rounds=7)
    assert actual.ratio < 0.5
    assert compare_latency(large, small, rounds=7).ratio > 2


def test_an_interval_holds_the_median_as_often_as_it_says() -> None:
    noise = np.random.default_rng(4)
    samples = noise.exponential(size=(500, 31))  # its median is ln 2
    held = [least <= np.log(2) <= most for least, most in map(median_interval, samples.tolist())]
    assert np.mean(held) >= CONFIDENCE - 0.01
    assert median_interval([1.0, 2.0]) == (0.0, math.inf)


def test_noise_fails_no_budget_and_a_slow_file_does() -> None:
    noisy = Latency(1.003, 1.0, 1.003, 0.99, 1.01)
    assert not noisy.certainly_above(1.0)
    assert Latency(1.1, 1.0, 1.1, 1.08, 1.13).certainly_above(1.0)
    assert not Latency(1.1, 1.0, 1.1, 0.9, 1.3).certainly_above(1.0)
    assert Latency(1.1, 1.0, 1.1).certainly_above(1.0)


def test_it_measures_until_it_is_certain() -> None:
    noise = np.random.default_rng(7)

    def drawn(seconds: float) -> Timer:
        return lambda runs: [seconds * noise.lognormal(sigma=0.05)] * runs  # of one block

    actual = in_turns(drawn(0.006), drawn(0.004), rounds=9)
    assert 1 + MARGIN < actual.least <= 1.5 <= actual.most
    even = in_turns(drawn(0.004), drawn(0.004), rounds=9)
    assert even.least <= 1 <= even.most
    assert even.most - even.least <= MARGIN  # not before the two are certainly alike


def test_it_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunec.deploy.timing._SECONDS", 0.2)
    file = convolutions(tmp_path / "file.onnx", 3, 64, 64)
    start = time.perf_counter()
    compare_latency(file, file, rounds=10**6)
    assert time.perf_counter() - start < 5


def test_alignment_counts_what_a_cut_decides(tmp_path: Path) -> None:
    odd = convolutions(tmp_path / "odd.onnx", 3, 30, 24, 32)
    assert alignment(odd).layers == 3
    assert alignment(odd).odd == {8: 2, 16: 3}
    assert remedy(odd) == (
        "2 of 3 convolutions have channels that are not a multiple of 8, the block size of "
        "kernels: set round_to = 16."
    )
    by_8 = convolutions(tmp_path / "by8.onnx", 3, 24, 40)
    assert remedy(by_8).startswith("2 of 2 convolutions have channels that are not a multiple of")
    by_16 = convolutions(tmp_path / "by16.onnx", 1, 16, 48)
    assert remedy(by_16).startswith("All channels fill blocks of 16")


def test_a_dynamic_image_has_no_one_latency(tmp_path: Path) -> None:
    file = convolutions(tmp_path / "dynamic.onnx", 3, 8, size="width")
    with pytest.raises(PrunecError, match="its latency is not one number"):
        compare_latency(file, file)
