"""Kills a training again and again.

Each attempt is a process of its own that goes on after the last checkpoint. It is killed with
SIGKILL at a random moment after its first step, while it computes or while it writes; the last
attempt is left alone and writes its weights to FOLDER/final.safetensors. A line of JSON says how
many steps each attempt took.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from small_training import small_context, small_net
from torch import Tensor, nn

from prunec.training.loop import fit
from prunec.training.method import Method, Moment

PLAN = {
    "epochs": 20,
    "optimizer": {"name": "AdamW", "amsgrad": True},
    "learning_rate": 0.003,
    "mixup": 0.2,
    "ema": 0.9,
    "ship": "best",
    "checkpoint_minutes": 0.0002,  # almost every step, so that many kills fall into a write
}
LONGEST = 0.5  # seconds until a kill


class Drawing(Method):
    """State that every generator of random numbers goes into."""

    def __init__(self, weight: Tensor, after: Callable[[], None]) -> None:
        self.weight, self.after = weight, after
        self.drawn = torch.zeros(3, dtype=torch.float64)

    def after_step(self, moment: Moment) -> None:
        own = float(torch.rand(1, generator=moment.generator(self.weight.device)))
        self.drawn += torch.tensor([random.random(), np.random.rand(), own])
        self.weight.data *= 1 - 1e-4 * self.drawn.sum() / (1 + moment.number)
        self.after()

    def tensors(self) -> dict[str, Tensor]:
        return {"drawn": self.drawn}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:  # type: ignore[override]
        self.drawn.copy_(tensors["drawn"])


def train(folder: Path, resume: bool, after: Callable[[], None] = lambda: None) -> nn.Module:
    """The network, trained to its end."""
    net = small_net()
    fit(net, Drawing(next(net.parameters()), after), small_context(folder, resume=resume, **PLAN))
    return net


def attempt(folder: Path, delay: float | None) -> int:
    """Run one process; kill it ``delay`` seconds after its first step. Return its steps."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reader)
        net = train(folder, resume=True, after=lambda: os.write(writer, b".") and None)
        save_file(net.state_dict(), folder / "final.safetensors")
        os._exit(0)
    os.close(writer)
    steps = len(os.read(reader, 1))
    if delay is not None:
        time.sleep(delay)
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    assert delay is not None or status == 0, "the last attempt failed"
    while more := os.read(reader, 4096):
        steps += len(more)
    return steps


def kill(folder: Path, kills: int, seed: int) -> None:
    """Begin a training, go on so often, and once more to its end."""
    generator = random.Random(seed)
    delays = [generator.uniform(0, LONGEST) for _ in range(kills)]
    print(json.dumps([attempt(folder, delay) for delay in [*delays, None]]))
