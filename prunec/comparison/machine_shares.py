"""Shares of the machine: how many cells run at once, on which cores or GPUs."""

from __future__ import annotations

import os
from collections.abc import Sequence

from prunec.comparison.grid import Cell
from prunec.training.settings import counted

Share = dict[str, str]
"""The environment variables of a process."""


def shares(cells: Sequence[Cell], jobs: int | None) -> tuple[Share, ...]:
    """Return the shares of the machine: equal parts of the cores, and on CUDA one GPU each.

    OMP_NUM_THREADS, if set, bounds the threads of each.

    Args:
        cells: all cells of a comparison, not only unfinished ones, so that a continued comparison
            computes in the same way.
        jobs: number of shares; by default the number of GPUs, or of cores divided by the threads
            that recipes ask for, ``auto`` counting as one.
    """
    gpus = _gpus() if any(cell.recipe.device != "cpu" for cell in cells) else []
    asked = [cell.recipe.train.threads for cell in cells]
    threads = max((count for count in asked if isinstance(count, int)), default=1)
    # A training on a GPU needs the whole of it; on the CPU, threads of a cell share caches.
    count = jobs or len(gpus) or max(1, cores() // threads)
    count = max(1, min(count, len(cells)))
    own = {"OMP_NUM_THREADS": str(min(max(1, cores() // count), _most_threads()))}
    if not gpus:
        return (own,) * count
    return tuple({**own, "CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(count))


def described_shares(given: Sequence[Share]) -> str:
    """Return the shares in words."""
    threads = counted(int(given[0]["OMP_NUM_THREADS"]))
    gpus = len({share.get("CUDA_VISIBLE_DEVICES") for share in given} - {None})
    on = f" on {gpus} GPU{'' if gpus == 1 else 's'}" if gpus else ""
    return f"{len(given)} at once{on}, {threads} each"


def cores() -> int:
    """Return the number of cores that this process may use."""
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else os.cpu_count() or 1


def _most_threads() -> int:
    """Return the threads that OMP_NUM_THREADS allows; of OpenMP's list, the outermost level."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(1, int(asked)) if asked.isdecimal() else cores()


def _gpus() -> list[str]:
    """Return the GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them."""
    import torch  # here: help does not need it

    if not torch.cuda.is_available():
        return []
    named = [part for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part]
    return named or [str(index) for index in range(torch.cuda.device_count())]
