"""What torchrun does, its two processes forked from an agent that has imported torch already."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import traceback
import uuid
from collections.abc import Callable

import torch
from forked import PATIENCE, Ended
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

Worker = Callable[..., None]


def torchrun(worker: Worker, *arguments: object, restarts: int = 0) -> Ended:
    """Run ``worker`` in two processes, as ``torchrun --standalone --nproc-per-node 2``.

    The agent is a Python of its own: one that has gone backward through a network cannot be forked.
    """
    given = pickle.dumps((worker.__module__, worker.__name__, arguments, restarts)).hex()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", __file__, given],
        env=environment, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


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


if __name__ == "__main__":
    agent(*pickle.loads(bytes.fromhex(sys.argv[1])))
