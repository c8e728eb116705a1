"""Loads that two filters of a sparse convolution could share, if filters were paired at their best.

    python tests/bench/shared_loads.py [NETWORK@ZEROS | RUN …]

A kernel for pairs of filters loads an input once where both have a nonzero weight. Order is free
between layers, so any two filters may be a pair: pairs are taken greedily, the largest overlap
first. The share is that of loads saved: overlapping weights of all pairs by all nonzero weights.
Networks are those of `native_speed.py`, with random zeros; of a run, its weights as trained.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from native_speed import masked
from safetensors.torch import load_file
from torch import Tensor, nn

DEFAULT = ("resnet50@90.23", "resnet50@95.15", "resnet50@98.05")


def kernels(name: str) -> Iterator[Tensor]:
    """Yield the kernels of a network's convolutions with zeros, one row a filter."""
    if "@" in name:
        network, _, zeros = name.partition("@")
        parts = masked(network, zeros).modules()
        weights = [part.weight.detach() for part in parts if isinstance(part, nn.Conv2d)]
    else:
        file = max(Path(name).glob("steps/*/weights.safetensors"))
        weights = [weight for weight in load_file(file).values() if weight.ndim == 4]
    for weight in weights:
        if weight.shape[1] > 1 and 0 < weight.count_nonzero() < 0.5 * weight.numel():
            yield weight.flatten(1)


def shared(rows: Tensor) -> int:
    """Return the overlapping nonzero weights of greedily chosen pairs of filters."""
    live = (rows != 0).float()
    overlap = (live @ live.T).triu(1)
    total = 0
    for _ in range(len(rows) // 2):
        best = int(overlap.argmax())
        first, second = divmod(best, len(rows))
        total += int(overlap[first, second])
        for taken in (first, second):
            overlap[taken], overlap[:, taken] = -1, -1
    return total


def main() -> None:
    for name in sys.argv[1:] or DEFAULT:
        pairs = [(shared(rows), int(rows.count_nonzero())) for rows in kernels(name)]
        saved, nonzero = (sum(column) for column in zip(*pairs, strict=True))
        most = max(a / b for a, b in pairs)
        print(f"{name:20} {saved / nonzero:6.1%} of the loads, {most:.1%} in one layer", flush=True)


if __name__ == "__main__":
    main()
