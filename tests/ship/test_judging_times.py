"""Judgement of two files' times, on synthetic times: an uncut file is equally fast."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from prunec.deploy import timing
from prunec.deploy.runner import Batch, Identity, LoadedFile, Runner, Sizes
from prunec.deploy.timing import CONFIDENCE, Latency, interleaved, quartiles
from prunec.pipeline.twins import time_beside_twin

Times = Callable[[np.random.Generator], Iterator[float]]


def steady(noise: np.random.Generator) -> Iterator[float]:
    while True:
        yield 0.004 * (1 + 0.05 * noise.standard_normal() ** 2)


def interrupted(noise: np.random.Generator) -> Iterator[float]:
    """A fifth of the calls wait for another process."""
    while True:
        yield 0.004 * (1 + (noise.random() < 0.2) * noise.exponential(5))


def two_speeds(noise: np.random.Generator) -> Iterator[float]:
    """The processor's clock changes every hundred calls or so."""
    speed = 1.0
    while True:
        if noise.random() < 0.01:
            speed = noise.choice([1.0, 1.6, 2.5])
        yield 0.004 * speed * (1 + 0.02 * noise.standard_normal() ** 2)


def drifting(noise: np.random.Generator) -> Iterator[float]:
    """It gets warm: slower all the time."""
    slower = 1.0
    while True:
        slower *= 1.0005
        yield 0.004 * slower * (1 + 0.3 * noise.random())


MACHINES = (steady, interrupted, two_speeds, drifting)


class Clock:
    """Time that passes when a file runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def judged(self, machine: Times, seed: int, factor: float = 1.0) -> Latency:
        """A file that takes ``factor`` times as long as the dense one, on one machine."""
        times = machine(np.random.default_rng(seed))

        def call(by: float) -> None:
            self.now += by * next(times)

        return interleaved(lambda: call(factor), lambda: call(1.0))


@pytest.mark.parametrize("machine", MACHINES)
def test_an_uncut_network_is_not_told_to_be_faster_than_itself(
    machine: Times, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    actual = [clock.judged(machine, seed) for seed in range(60)]
    wrong = [latency for latency in actual if latency.apart]
    assert len(wrong) <= 1, "the chance of an error is 1 % in all looks together"
    assert [latency.reported for latency in actual].count(1.0) >= 59
    assert sum(f.least <= 1 <= f.most for f in actual) / len(actual) >= CONFIDENCE - 0.02


@pytest.mark.parametrize("machine", [steady, two_speeds, drifting])
def test_a_network_at_0_72_is_told_to_be(machine: Times, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    for seed in range(10):
        actual = clock.judged(machine, seed, 0.72)
        assert actual.apart
        assert actual.reported == actual.ratio == pytest.approx(0.72, abs=0.06)


def test_the_ratio_follows_from_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    actual = Clock(monkeypatch).judged(interrupted, 3, 0.5)
    ours, theirs = np.array(actual.rounds).T
    assert actual.ratio == np.median(ours / theirs)
    assert actual.shipped_ms == np.median(ours)
    assert actual.dense_ms == np.median(theirs)
    assert quartiles(ours.tolist()) == pytest.approx(tuple(np.percentile(ours, [25, 75])))


@pytest.mark.parametrize(
    ("least", "most", "told"),
    [(0.5, 1.2, 1.0), (0.95, 0.987, 1.0), (0.6, 0.8, 0.72), (1.01, 1.4, 1.0), (0.0, np.inf, 0.72)],
)
def test_a_ratio_is_reported_where_its_whole_interval_lies_beyond_the_margin(
    least: float, most: float, told: float
) -> None:
    """The last is an older record, which knows no interval."""
    assert Latency(0.72, 1.0, 0.72, least, most).reported == told


class Scripted(LoadedFile):
    """File whose measured ratio is given."""

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio

    @property
    def input_shapes(self) -> list[Sizes]:
        return []

    def run(self, batches: Iterable[Batch]) -> Iterator[list[np.ndarray]]:
        yield []

    def time(self, dense: LoadedFile, *, batch: int = 1, rounds: int = 31) -> Latency:
        return Latency(self.ratio, 1.0, self.ratio, self.ratio - 0.01, self.ratio + 0.01)


@pytest.mark.parametrize(
    ("loadings", "limit", "expected", "measured"),
    [
        ((1.4, 0.7), 1.0, 0.7, 2),  # one loading lay badly
        ((1.4, 1.3), 1.0, 1.3, 2),  # it is slower
        ((1.01, 0.7), 1.0, 1.01, 1),  # within the margin
        ((1.4, 0.7), None, 1.4, 1),  # no budget
    ],
)
def test_a_broken_budget_is_measured_again_with_files_opened_anew(
    loadings: tuple[float, ...], limit: float | None, expected: float, measured: int, tmp_path: Path
) -> None:
    opened: list[Scripted] = []

    @dataclass(frozen=True)
    class Unsteady(Runner):
        suffixes: ClassVar[frozenset[str]] = frozenset({".onnx"})

        @property
        def identity(self) -> Identity:
            return Identity("unsteady", "1", "")

        def open(self, path: Path) -> Scripted:
            # Shipped and dense file are opened in turn: two files per measurement.
            opened.append(Scripted(loadings[len(opened) // 2]))
            return opened[-1]

    twin = tmp_path / "dense.onnx"
    assert time_beside_twin(Unsteady(), twin, twin, limit) is None  # there is no twin yet
    twin.touch()
    latency = time_beside_twin(Unsteady(), twin, twin, limit)
    assert latency is not None
    assert (latency.ratio, len(opened)) == (expected, 2 * measured)
