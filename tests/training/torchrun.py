"""Stand-in for torchrun: two processes forked from an agent that has already imported torch."""

from __future__ import annotations

import importlib
import traceback
import uuid
from collections.abc import Callable

import torch
from forked import Ended
from nursery import born
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

Worker = Callable[..., None]


def torchrun(worker: Worker, *arguments: object, restarts: int = 0) -> Ended:
    """Run ``worker`` in two processes, as ``torchrun --standalone --nproc-per-node 2``."""
    return born(agent, worker.__module__, worker.__name__, arguments, restarts)


def agent(module: str, name: str, arguments: tuple[object, ...], restarts: int) -> None:
    """Start two processes and wait for them."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=restarts,
        monitor_interval=0.1,
        start_method="fork",
    )
    elastic_launch(config, told)(getattr(importlib.import_module(module), name), *arguments)


def told(worker: Worker, *arguments: object) -> None:
    """Say what a process ends with, as Python does."""
    torch.set_num_threads(1)
    try:
        worker(*arguments)
    except SystemExit as end:
        if end.code:
            raise
    except BaseException:
        traceback.print_exc()
        raise
