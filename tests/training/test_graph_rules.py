"""CUDA's rules for graphs, as far as a stand-in of torch.cuda shows them kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
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


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let torch.cuda write down what is asked of it."""
    lines: list[str] = []
    usual = Stream("usual", lines)
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
        lines.append(f"record on {how['stream'].name}, {mode}, {pool}")
        yield  # an error leaves the stream current, as in torch 2.14
        current[0] = usual

    @contextmanager
    def device(chosen: Any) -> Iterator[None]:
        lines.append(f"device {chosen}")
        yield

    pools = iter(["pool 1", "pool 2"])
    stand_in = {
        "Stream": lambda chosen: Stream(f"own of {chosen}", lines),
        "graph_pool_handle": lambda: next(pools),
        "CUDAGraph": lambda: SimpleNamespace(replay=lambda: lines.append("replay")),
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


def test_recordings_share_stream_and_pool(log: list[str]) -> None:
    backend = CudaGraphs(DEVICE)
    for _ in range(2):
        backend.record(lambda: None)
    (line,) = {line for line in log if line.startswith("record")}
    assert line.endswith("pool 1")


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


def test_devices_without_graphs_record_nothing(log: list[str]) -> None:
    assert backend_of(torch.device("cpu")) is None
    backend = backend_of(DEVICE)
    assert isinstance(backend, CudaGraphs)
    assert backend.device == DEVICE
