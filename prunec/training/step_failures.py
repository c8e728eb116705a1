"""Failures of a step that are not defects of the network: out of memory, a lost process."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from prunec.errors import LostProcess, OutOfMemory
from prunec.processes import Processes
from prunec.training.objective import Objective
from prunec.training.settings import Settings
from prunec.training.step import Forward
from prunec.wording import first_line

SIGNS_OF_LOSS = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe")


class ShortOfMemory(Exception):
    """Out of memory for a batch, with this rank's part of it."""

    def __init__(self, error: BaseException, images: Tensor, labels: Tensor) -> None:
        super().__init__(str(error))
        self.error, self.images, self.labels = error, images, labels


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a device, or the system's allocator, ran out of memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # torch's allocator on the CPU raises a plain RuntimeError.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error).lower()


@contextmanager
def sizing(
    model: nn.Module, objective: Objective, settings: Settings, processes: Processes
) -> Iterator[None]:
    """Determine by halving which batch size fits if the block runs out of memory.

    This rank tries alone: if processes share the network it tries a copy, and the block must have
    restored the network's own batch norms.

    Raises:
        OutOfMemory: the remedy names the batch size that fits.
    """
    try:
        yield
    except ShortOfMemory as short:
        # Gradients of the step that failed would take memory from the trials.
        for parameter in model.parameters():
            parameter.grad = None
        own = copy.deepcopy(model) if processes.several else model
        raise _out_of_memory(short, Forward(own, objective, settings), processes) from None


def _out_of_memory(short: ShortOfMemory, forward: Forward, processes: Processes) -> OutOfMemory:
    """Return the error that names the batch size that fits."""
    fits = processes.count * _largest(forward, short.images, short.labels)
    whole = processes.count * len(short.labels)
    remedy = (
        f"train.batch_size = {fits} fits (tried here); halve train.learning_rate with every "
        "halving of the batch"
        if fits
        else "Not even two images fit: use a smaller network, smaller images, or more memory"
    )
    first = first_line(short.error).rstrip(".")
    return OutOfMemory(
        f"out of memory with train.batch_size = {whole} on {short.images.device}: {first}",
        remedy=f"{remedy}.",
    )


def _largest(forward: Forward, images: Tensor, labels: Tensor) -> int:
    """Return the largest half, quarter, … of a batch that fits; 0 if none does."""
    size = len(labels) // 2
    while size > 1:
        if images.is_cuda:
            torch.cuda.empty_cache()
        try:
            torch.autograd.backward(forward(images[:size], labels[:size])[0])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                return 0
        else:
            return size
        size //= 2
    return 0


@contextmanager
def explaining(processes: Processes, kept: Callable[[], str]) -> Iterator[None]:
    """Turn torch's errors about lost processes into one with a remedy.

    Args:
        processes: the processes.
        kept: function that returns a sentence on what is saved.

    Raises:
        LostProcess: another process ended or stopped responding.
    """
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or any(
            sign in str(error).lower() for sign in SIGNS_OF_LOSS
        )
        if not (processes.several and lost):
            raise
        raise LostProcess(
            f"rank {processes.rank} of {processes.count} lost another process: "
            f"{first_line(error)[:160]}",
            remedy=f"{kept()}Start the same command again with --resume, on as many processes as "
            "there are; torchrun --max-restarts N does so by itself.",
        ) from error
