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
