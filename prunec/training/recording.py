"""Recorders of the operations of a device, which replay them at one call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch


class Backend(ABC):
    """Recorder of operations on a device.

    Attributes:
        name: name of a recording, for messages.
    """

    name = ""

    @abstractmethod
    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return a function that repeats every operation of ``work`` on the same memory.

        ``work`` may be called twice, and what it changes is not given back.

        Raises:
            RuntimeError: it asks for one that cannot be recorded.
        """

    @abstractmethod
    def wait(self) -> None:
        """Wait until the device has done what was asked."""


class CudaGraphs(Backend):
    """CUDA graphs of one device, recorded on a stream of their own, in one pool of memory.

    The pool is shared: whatever a step leaves for the next one (weights, momentum, statistics,
    averages, the method's state) was there before the recording, so that a replay may overwrite
    what another recording computed on its way. Three phases of a ResNet-50 would need three times
    the memory of its activations otherwise.
    """

    name = "CUDA graph"

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # torch keeps one capture stream for the process, on the device that came first.
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """See :meth:`Backend.record`; ``work`` is done once, and then recorded undone.

        Once done on the stream of the recording, it has what libraries make for each stream
        (cuBLAS's handle and workspace) and what is compiled at a first call. Threads that pin
        batches go on meanwhile: they are no part of the recording, and by default CUDA would break
        it off, and them.
        """
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device):
            before = torch.cuda.current_stream(self.device)
            try:
                self.stream.wait_stream(before)
                with torch.cuda.stream(self.stream):
                    work()
                before.wait_stream(self.stream)
                with torch.cuda.graph(
                    graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"
                ):
                    work()
            finally:
                torch.cuda.set_stream(before)  # a recording that broke off leaves its own current
        replay: Callable[[], None] = graph.replay
        return replay

    def wait(self) -> None:
        """See :meth:`Backend.wait`."""
        torch.cuda.synchronize(self.device)


def backend_of(device: torch.device) -> Backend | None:
    """Return what records the operations of a device; None where nothing does."""
    return CudaGraphs(device) if device.type == "cuda" else None
