"""What records the operations of a device, so that they can be done again at one call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch


class Backend(ABC):
    """What records operations on a device.

    Attributes:
        name: what a recording is called.
    """

    name = ""

    @abstractmethod
    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return what does again, on the same memory, every operation that ``work`` asks for.

        Raises:
            RuntimeError: it asks for one that cannot be recorded.
        """

    @abstractmethod
    def wait(self) -> None:
        """Wait until the device has done what was asked."""


class CudaGraphs(Backend):
    """CUDA's own."""

    name = "CUDA graph"

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """See :meth:`Backend.record`; the operations are not done meanwhile."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        replay: Callable[[], None] = graph.replay
        return replay

    def wait(self) -> None:
        """See :meth:`Backend.wait`."""
        torch.cuda.synchronize()


def backend_of(device: torch.device) -> Backend | None:
    """Return what records the operations of a device; None where nothing does."""
    return CudaGraphs() if device.type == "cuda" else None
