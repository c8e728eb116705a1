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

        ``work`` may be called twice; the caller restores the tensors that it changes.

        Raises:
            RuntimeError: an operation of ``work`` cannot be recorded.
        """

    @abstractmethod
    def wait(self) -> None:
        """Wait until the device has finished all operations."""


class CudaGraphs(Backend):
    """CUDA graphs of one device, recorded on a stream of their own, in one pool of memory.

    All recordings share the pool, so a replay may overwrite intermediate values of another
    recording. Values that a step leaves for the next one (weights, momentum, statistics, averages,
    the method's state) are safe: their memory is older than the recordings. Without sharing, three
    phases of a ResNet-50 would need three times the memory of its activations.
    """

    name = "CUDA graph"

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # torch keeps one capture stream for the process, on the device that came first.
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """See :meth:`Backend.record`; ``work`` is executed once before it is recorded.

        The first call, on the stream of the recording, makes what libraries create for each stream
        (cuBLAS's handle and workspace) and compiles what is compiled at a first call. Other threads
        pin batches meanwhile. They are not recorded; in CUDA's default mode their calls would break
        off the recording, and fail.
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
                torch.cuda.set_stream(before)  # a failed recording leaves its stream current
        replay: Callable[[], None] = graph.replay
        return replay

    def wait(self) -> None:
        """See :meth:`Backend.wait`."""
        torch.cuda.synchronize(self.device)


def backend_of(device: torch.device) -> Backend | None:
    """Return the recorder for a device; None if its operations cannot be recorded."""
    return CudaGraphs(device) if device.type == "cuda" else None
