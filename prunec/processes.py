"""Processes of a distributed training: rank, number of ranks, and communication.

torchrun starts them and numbers them in the environment; without it there is a single process.
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
PATIENCE = timedelta(minutes=10)  # torch's default for NCCL; a silent rank is then given up


@dataclass(frozen=True)
class Processes:
    """This process among all processes of a training; rank 0 writes files and prints.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes.
        local: number of this process on its machine, from 0.
        local_count: number of processes on its machine.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    local_count: int = 1

    @property
    def first(self) -> bool:
        """Return whether this is rank 0, which writes files and prints."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Return whether there is more than one."""
        return self.count > 1

    def part(self, size: int) -> slice:
        """Return this rank's part of a batch of ``size`` samples.

        Raises:
            DataError: the parts would not be equal: the mean of their losses would not be the
                batch's loss.
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
        """Overwrite ``tensors``, in place, by those of rank 0 on every rank."""
        if self.several:
            for name in sorted(
                tensors
            ):  # the same order on every rank: broadcasts are matched by it
                dist.broadcast(tensors[name], src=0)

    @contextmanager
    def turns(self) -> Iterator[None]:
        """Run the block on one rank per machine first: it downloads, the others find the files."""
        if self.local:
            self.wait()
        yield
        if not self.local:
            self.wait()

    def wait(self) -> None:
        """Wait until all processes have arrived here."""
        if self.several:
            dist.barrier()


ALONE = Processes()


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def workers_here(wanted: int) -> int:
    """Return the number of processes that load images: as wanted, but at most one per core.

    Processes on the same machine share its cores.
    """
    return min(wanted, max(1, available_cores() // processes_here().local_count))


def processes_here() -> Processes:
    """Read this process's ranks from torchrun's environment variables; a single one without."""
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
    # torchrun keeps one store across restarts: it still has the addresses of dead processes, and
    # connecting to those waits for the timeout. A prefix per attempt hides them.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    own = dist.PrefixStore(f"attempt-{attempt}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=own, rank=rank, world_size=count, timeout=PATIENCE)
    try:
        yield processes
    finally:
        dist.destroy_process_group()
