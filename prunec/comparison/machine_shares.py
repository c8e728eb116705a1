"""How many cells run at once, and what of the machine each may use."""

from __future__ import annotations

import os
from collections.abc import Sequence

from prunec.comparison.grid import Cell
from prunec.training.settings import counted

Share = dict[str, str]
"""The environment variables of a process."""


def shares(cells: Sequence[Cell], jobs: int | None) -> tuple[Share, ...]:
    """Return the shares of the machine; equal parts of the cores, on CUDA a GPU each.

    OMP_NUM_THREADS, where it is set, bounds the threads of each.

    Args:
        cells: all cells of a comparison; not only those that are left, so that a comparison that
            goes on computes as it began.
        jobs: how many shares; by default as many as there are GPUs, or cores for the threads that
            recipes ask for, ``auto`` being one.
    """
    gpus = _gpus() if any(cell.recipe.device != "cpu" for cell in cells) else []
    asked = [cell.recipe.train.threads for cell in cells]
    threads = max((count for count in asked if isinstance(count, int)), default=1)
    count = jobs or len(gpus) or max(1, cores() // threads)
    count = max(1, min(count, len(cells)))
    own = {"OMP_NUM_THREADS": str(min(max(1, cores() // count), _most_threads()))}
    if not gpus:
        return (own,) * count
    return tuple({**own, "CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(count))


def described_shares(given: Sequence[Share]) -> str:
    """Return what the shares are, for people."""
    threads = counted(int(given[0]["OMP_NUM_THREADS"]))
    gpus = len({share.get("CUDA_VISIBLE_DEVICES") for share in given} - {None})
    on = f" on {gpus} GPU{'' if gpus == 1 else 's'}" if gpus else ""
    return f"{len(given)} at once{on}, {threads} each"


def cores() -> int:
    """Return how many cores this process may use."""
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else os.cpu_count() or 1


def _most_threads() -> int:
    """How many threads the user allows a process; OpenMP's lists give the outermost first."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(1, int(asked)) if asked.isdecimal() else cores()


def _gpus() -> list[str]:
    """The GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them."""
    import torch  # here: help needs none

    if not torch.cuda.is_available():
        return []
    named = [part for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part]
    return named or [str(index) for index in range(torch.cuda.device_count())]
