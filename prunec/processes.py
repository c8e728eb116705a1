"""Which of how many processes this one is, and what they say to one another.

Processes are started by torchrun, which names them in the environment; without it there is one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from prunec.errors import DataError

T = TypeVar("T")
PATIENCE = timedelta(minutes=10)  # a rank that says nothing for so long is lost


@dataclass(frozen=True)
class Processes:
    """One process among ``count``; rank 0 writes and speaks for all.

    Attributes:
        rank: this process's number, from 0.
        count: how many there are.
        local: its number on its own machine.
        local_count: how many share the machine.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    local_count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there is more than one."""
        return self.count > 1

    def part(self, size: int) -> slice:
        """Return this rank's part of a batch of ``size``.

        Raises:
            DataError: the parts would not be equal, and the mean of their losses not the batch's.
        """
        if size % self.count:
            raise DataError(
                f"a batch of {size} cannot be shared equally by {self.count} processes",
                remedy=f"Set train.batch_size to a multiple of {self.count}, or start another "
                "number of processes.",
            )
        own = size // self.count
        return slice(self.rank * own, (self.rank + 1) * own)

    def sum(self, values: Tensor) -> Tensor:
        """Return ``values`` summed over all processes."""
        if self.several:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def share(self, value: T) -> T:
        """Return rank 0's ``value`` on every rank."""
        if not self.several:
            return value
        box: list[Any] = [value if self.first else None]
        dist.broadcast_object_list(box, src=0)
        shared: T = box[0]
        return shared

    def agree(self, tensors: Mapping[str, Tensor]) -> None:
        """Let ``tensors`` be rank 0's on every rank, in place."""
        if self.several:
            for name in sorted(tensors):
                dist.broadcast(tensors[name], src=0)

    @contextmanager
    def turns(self) -> Iterator[None]:
        """Let one rank of each machine run the block first: it fetches, the others find."""
        if self.local:
            self.wait()
        yield
        if not self.local:
            self.wait()

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.several:
            dist.barrier()


ALONE = Processes()


def available_cores() -> int:
    """Return how many cores this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def workers_here(wanted: int) -> int:
    """Return how many processes may load images: as many as wanted, but at most one a core.

    Processes that share a machine share its cores.
    """
    return min(wanted, max(1, available_cores() // processes_here().local_count))


def processes_here() -> Processes:
    """Return what torchrun put into the environment; one process without it."""
    number = {key: int(os.environ.get(key, default)) for key, default in _VARIABLES.items()}
    return Processes(
        number["RANK"], number["WORLD_SIZE"], number["LOCAL_RANK"], number["LOCAL_WORLD_SIZE"]
    )


_VARIABLES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the other processes while the block runs: gloo, and NCCL for tensors on CUDA."""
    processes = processes_here()
    if not processes.several or dist.is_initialized():
        yield processes
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, rank, count = next(rendezvous("env://", timeout=PATIENCE))
    # torchrun keeps one store for every start of its processes: the addresses of those that died
    # are still in it, and whoever waits there waits long.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    own = dist.PrefixStore(f"attempt-{attempt}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=own, rank=rank, world_size=count, timeout=PATIENCE)
    try:
        yield processes
    finally:
        dist.destroy_process_group()
