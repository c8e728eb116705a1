"""How a device computes a step: precision, memory layout, threads, compiled or not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.processes import Processes, available_cores

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Settings:
    """Settings that change the speed of a training, and its results only by rounding.

    Attributes:
        precision: ``fp32`` (TF32 where a CUDA device has it), ``bf16`` or ``fp16`` by autocast.
        channels_last: the memory layout of images and kernels.
        threads: of torch on the CPU.
        compile: whether torch.compile translates the network.
    """

    precision: str = "fp32"
    channels_last: bool = False
    threads: int = 1
    compile: bool = False

    def casting(self, device: torch.device) -> torch.autocast:
        """Return the context in which the network runs."""
        dtype = AUTOCAST.get(self.precision)
        return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)

    def laid_out(self, images: Tensor) -> Tensor:
        """Return ``images`` [N, C, H, W] in the memory layout."""
        return images.contiguous(
            memory_format=torch.channels_last if self.channels_last else torch.contiguous_format
        )

    @property
    def layout(self) -> torch.memory_format:
        """The memory layout of a network's parameters."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def __str__(self) -> str:
        layout = "channels_last" if self.channels_last else "contiguous"
        compiled = ", compiled" if self.compile else ""
        return f"{self.precision}, {layout}, {counted(self.threads)}{compiled}"


def counted(threads: int) -> str:
    """Return ``1 thread`` or ``n threads``."""
    return f"{threads} thread{'' if threads == 1 else 's'}"


def cores(processes: Processes) -> int:
    """Return how many cores a process may use: OMP_NUM_THREADS, or an equal part of all.

    For several processes torchrun sets that variable to 1 whatever the machine has: it is not
    what somebody asked for.
    """
    if not processes.several and os.environ.get("OMP_NUM_THREADS", "").isdigit():
        return max(1, int(os.environ["OMP_NUM_THREADS"]))
    return max(1, available_cores() // processes.local_count)


@contextmanager
def computing(settings: Settings, device: torch.device, *, search: bool = True) -> Iterator[None]:
    """Set threads, and on CUDA TF32 and cuDNN's search for kernels, while the block runs.

    Args:
        settings: how to compute.
        device: where.
        search: whether cuDNN tries kernels for every shape: seconds, for a faster step.
    """
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    torch.set_num_threads(settings.threads)
    if device.type == "cuda":
        # TF32: the range of fp32, with ten bits of fraction.
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = search, True
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = cudnn
