"""Random numbers that depend only on named seeds, drawn without disturbing anybody else's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derived_seed(*parts: int) -> int:
    """Return a seed made of non-negative ``parts``; other parts give an unrelated seed."""
    return seeds(1, *parts)[0]


def seeds(count: int, *parts: int) -> list[int]:
    """Return ``count`` seeds made of non-negative ``parts``, each unrelated to the others."""
    words = np.random.SeedSequence(parts).generate_state(count, np.uint64)
    return [int(word >> np.uint64(1)) for word in words]


@contextmanager
def seeded(*parts: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's generator of the CPU (and of a CUDA ``device``); restore it afterwards."""
    seed = derived_seed(*parts)
    on_cuda = device is not None and device.type == "cuda"
    devices = [device] if on_cuda else []
    with torch.random.fork_rng(devices=devices):
        seed_torch(seed, device)
        yield


def seed_torch(seed: int, device: torch.device | None = None) -> None:
    """Seed torch's generator of the CPU, and of a CUDA ``device``.

    ``torch.manual_seed`` does so for every device there may be, in 200 µs instead of 2.
    """
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed python's and numpy's generators, and torch's of the CPU and of ``device``."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    seed_torch(seed, device)


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Give python, numpy and torch their random numbers back after the block."""
    states = random.getstate(), np.random.get_state()
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
