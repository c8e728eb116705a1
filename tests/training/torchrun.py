"""What torchrun does, without starting Python anew: its agent and two processes are forked."""

from __future__ import annotations

import tempfile
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path

import torch
from forked import Ended, Forked
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

Worker = Callable[..., None]


def torchrun(worker: Worker, *arguments: object, restarts: int = 0) -> Ended:
    """Run ``worker`` in two processes, as ``torchrun --standalone --nproc-per-node 2``."""
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
    with tempfile.TemporaryDirectory() as folder:
        agent = elastic_launch(config, _told)
        return Forked(lambda: agent(worker, *arguments), Path(folder)).ended()


def _told(worker: Worker, *arguments: object) -> None:
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
