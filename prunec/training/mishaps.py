"""What may befall a step that is no defect of the network: out of memory, a lost process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from prunec.errors import LostRank, OutOfMemory
from prunec.training.ranks import Ranks

Backward = Callable[[Tensor, Tensor], object]
SIGNS_OF_LOSS = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe")


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether a device, or the system's allocator, had no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error).lower()


def out_of_memory(
    error: BaseException, backward: Backward, images: Tensor, labels: Tensor, ranks: Ranks
) -> OutOfMemory:
    """Return the error that says which batch size fits, found by trying halves of the batch.

    Args:
        error: what was raised.
        backward: runs a batch forward and backward.
        images: the batch that did not fit, this rank's part.
        labels: its labels.
        ranks: the processes that share a batch.
    """
    fits = _largest(backward, images, labels)
    whole = len(labels) * ranks.count
    remedy = (
        f"train.batch_size = {fits * ranks.count} fits (tried here); halve train.learning_rate "
        "with every halving of the batch"
        if fits
        else "Not even two images fit: use a smaller network, smaller images, or more memory"
    )
    first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return OutOfMemory(
        f"out of memory with train.batch_size = {whole} on {images.device}: {first}",
        remedy=f"{remedy}.",
    )


def _largest(backward: Backward, images: Tensor, labels: Tensor) -> int:
    """The largest half, quarter, … of a batch that can be learned; 0 for none."""
    size = len(labels) // 2
    while size > 1:
        if images.is_cuda:
            torch.cuda.empty_cache()
        try:
            backward(images[:size], labels[:size])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                return 0
        else:
            return size
        size //= 2
    return 0


@contextmanager
def explaining(ranks: Ranks, kept: Callable[[], str]) -> Iterator[None]:
    """Turn what torch says of lost processes into an error with its remedy.

    Args:
        ranks: the processes.
        kept: says what is saved.

    Raises:
        LostRank: another process ended or fell silent.
    """
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or any(
            sign in str(error).lower() for sign in SIGNS_OF_LOSS
        )
        if not (ranks.several and lost):
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise LostRank(
            f"rank {ranks.rank} of {ranks.count} lost another process: {first[:160]}",
            remedy=f"{kept()}Start the same command again with --resume, on as many processes as "
            "there are; torchrun --max-restarts N does so by itself.",
        ) from error
