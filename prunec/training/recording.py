"""Recorders of the operations of a device, which replay them at one call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from weakref import WeakSet

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

    A pool ends with its last recording, and torch asserts that an ended one is not asked for again.
    The next recording then has a new one.
    """

    name = "CUDA graph"

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # torch keeps one capture stream for the process, on the device that came first.
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.graphs: WeakSet[torch.cuda.CUDAGraph] = WeakSet()

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
                pool = next((other.pool() for other in self.graphs), None)
                with torch.cuda.graph(
                    graph, pool=pool, stream=self.stream, capture_error_mode="thread_local"
                ):
                    work()
            except BaseException:
                self._recover(before)
                raise
        self.graphs.add(graph)
        replay: Callable[[], None] = graph.replay
        return replay

    def _recover(self, stream: torch.cuda.Stream) -> None:
        """Undo what a recording that broke off leaves behind: its stream, and random numbers.

        The generator of some versions of torch believes for good that it is recorded, and refuses
        the next dropout. A copy of its state is free of that.
        """
        torch.cuda.set_stream(stream)
        index = self.device.index
        number = torch.cuda.current_device() if index is None else index
        generator = torch.cuda.default_generators[number]
        generator.graphsafe_set_state(generator.clone_state())

    def wait(self) -> None:
        """See :meth:`Backend.wait`."""
        torch.cuda.synchronize(self.device)


def backend_of(device: torch.device) -> Backend | None:
    """Return the recorder for a device; None if its operations cannot be recorded."""
    return CudaGraphs(device) if device.type == "cuda" else None
