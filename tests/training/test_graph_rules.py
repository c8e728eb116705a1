"""CUDA's rules for graphs, as far as a stand-in of torch.cuda shows them kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest
import torch

from prunec.training.recording import CudaGraphs, backend_of

DEVICE = torch.device("cuda:1")


class Stream:
    def __init__(self, name: Any, log: list[str]) -> None:
        self.name, self.log = str(name), log

    def wait_stream(self, other: Stream) -> None:
        self.log.append(f"{self.name} waits for {other.name}")


class Graph:
    """Recording whose pool is the one that it was given, or one of its own."""

    number, own, lines = 0, "", []  # type: ignore[var-annotated]

    def pool(self) -> str:
        return self.own

    def replay(self) -> None:
        self.lines.append("replay")


class Generator:
    """Random numbers whose state can be replaced by a copy."""

    def __init__(self, log: list[str], number: int) -> None:
        self.log, self.number = log, number

    def clone_state(self) -> str:
        return f"copy of {self.number}"

    def graphsafe_set_state(self, state: str) -> None:
        self.log.append(f"generator {self.number} is {state}")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let torch.cuda write down what is asked of it."""
    lines: list[str] = []
    numbers, usual = count(1), Stream("usual", lines)
    current = [usual]

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        before, current[0] = current[0], stream
        lines.append(f"on {stream.name}")
        yield
        current[0] = before

    @contextmanager
    def recorded(graph: Any, **how: Any) -> Iterator[None]:
        current[0] = how["stream"]
        mode, pool = how["capture_error_mode"], how["pool"]
        graph.number = next(numbers)
        graph.lines, graph.own = lines, pool or f"pool {graph.number}"
        lines.append(f"record on {how['stream'].name}, {mode}, {graph.own}")
        yield  # an error leaves the stream current, as in torch 2.14
        current[0] = usual

    @contextmanager
    def device(chosen: Any) -> Iterator[None]:
        lines.append(f"device {chosen}")
        yield

    stand_in = {
        "Stream": lambda chosen: Stream(f"own of {chosen}", lines),
        "CUDAGraph": Graph,
        "default_generators": [Generator(lines, number) for number in range(2)],
        "current_device": lambda: 0,
        "current_stream": lambda chosen=None: current[0],
        "set_stream": lambda stream: current.__setitem__(0, stream),
        "stream": on,
        "graph": recorded,
        "device": device,
        "synchronize": lambda chosen=None: lines.append(f"wait for {chosen}"),
    }
    for name, function in stand_in.items():
        monkeypatch.setattr(torch.cuda, name, function)
    return lines


def test_work_is_done_once_on_the_stream_that_records_it(log: list[str]) -> None:
    backend = CudaGraphs(DEVICE)
    replay = backend.record(lambda: log.append("work"))
    replay()
    backend.wait()
    assert log == [
        "device cuda:1",
        "own of cuda:1 waits for usual",
        "on own of cuda:1",
        "work",
        "usual waits for own of cuda:1",
        "record on own of cuda:1, thread_local, pool 1",
        "work",
        "replay",
        "wait for cuda:1",
    ]


def recorded_on(log: list[str]) -> list[str]:
    """Return the pools of the recordings in their order."""
    return [line.rpartition(", ")[2] for line in log if line.startswith("record")]


def test_recordings_share_stream_and_pool(log: list[str]) -> None:
    backend = CudaGraphs(DEVICE)
    held = [backend.record(lambda: None) for _ in range(3)]
    assert recorded_on(log) == ["pool 1"] * len(held)


def test_a_pool_whose_recordings_are_gone_is_not_asked_for_again(log: list[str]) -> None:
    """torch asserts so: the trials of `auto`, one after the other, each drop their recordings."""
    backend = CudaGraphs(DEVICE)
    held: list[Callable[[], None]] = []
    for number in range(3):
        held.append(backend.record(lambda: None))
        if number == 1:
            held.clear()
    assert recorded_on(log) == ["pool 1", "pool 1", "pool 3"]


@pytest.mark.parametrize("call", [1, 2])
def test_a_recording_that_breaks_off_leaves_the_stream_as_it_was(call: int, log: list[str]) -> None:
    calls = iter(range(1, 3))

    def work() -> None:
        if next(calls) == call:
            raise RuntimeError("operation not permitted when stream is capturing")

    backend = CudaGraphs(DEVICE)
    with pytest.raises(RuntimeError, match="not permitted"):
        backend.record(work)
    assert torch.cuda.current_stream().name == "usual"  # type: ignore[attr-defined]
    assert log[-1] == "generator 1 is copy of 1"  # torch's may refuse dropout otherwise
    held = backend.record(lambda: None)
    assert held
    assert len(recorded_on(log)) == len(set(recorded_on(log)))  # nor its pool


def test_devices_without_graphs_record_nothing(log: list[str]) -> None:
    assert backend_of(torch.device("cpu")) is None
    backend = backend_of(DEVICE)
    assert isinstance(backend, CudaGraphs)
    assert backend.device == DEVICE
