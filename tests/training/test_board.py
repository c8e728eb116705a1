"""TensorBoard files, read back by TensorBoard's own reader."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from prunec.errors import PrunecError
from prunec.training.tensorboard_log import Board

LINE = {
    "pass": "train-gdp",
    "epoch": 1,
    "loss": 0.5,
    "test_accuracy": 90.25,
    "gates_open": 12,
    "layers": {"gates open": {"features.0.0": 0.75, "head": 0.25}},
    "histograms": {"gate g": {"edges": [0.0, 0.25, 0.5, 1.0], "counts": [3, 0, 9]}},
}

written = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed"
)


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"histograms": 0})  # 0: all of them
    events.Reload()
    return events


@pytest.fixture
def events(tmp_path: Path) -> Any:
    board = Board(tmp_path)
    board.add(LINE, 1)
    board.add({**LINE, "epoch": 2, "loss": 0.25}, 2)
    return read(tmp_path)  # not closed: what was added is on disk already


@written
def test_numbers_are_scalars_by_pass_and_layer(events: Any) -> None:
    assert set(events.Tags()["scalars"]) == {
        "train-gdp/loss",
        "train-gdp/test_accuracy",
        "train-gdp/gates_open",
        "train-gdp/gates open/features.0.0",
        "train-gdp/gates open/head",
    }
    loss = [(event.step, event.value) for event in events.Scalars("train-gdp/loss")]
    assert loss == [(1, 0.5), (2, 0.25)]
    assert events.Scalars("train-gdp/gates open/head")[0].value == 0.25


@written
def test_histograms_keep_every_count(events: Any) -> None:
    assert events.Tags()["histograms"] == ["train-gdp/gate g"]
    actual = events.Histograms("train-gdp/gate g")
    assert [event.step for event in actual] == [1, 2]
    value = actual[0].histogram_value
    counts = {x: n for x, n in zip(value.bucket_limit, value.bucket, strict=True) if n}
    assert counts == {0.25: 3, 1.0: 9}
    assert (value.min, value.max, value.num) == (0, 1, 12)


def test_without_tensorboard_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(PrunecError) as caught:
        Board(tmp_path)
    assert caught.value.remedy == "Install it: pip install 'prunec[tensorboard]'"
