"""Share of random masks that leave a path from the image to the logits of ResNet-34.

    python tests/bench/random_paths.py --sparsity 0.999 0.9995 0.9999 --masks 300

The masks are those that SET and RigL begin with: so many weights of each kernel as ERK says, drawn
evenly. A channel is reached where a weight that is not zero reads a reached one, or a shortcut
passes one on. Where no logit is reached the network answers the same to every image, whatever its
weights are.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor
from torchvision.models import resnet34

from prunec.sparsity.spread import SPREADS
from prunec.wording import percent

BLOCKS = (3, 4, 6, 3)


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.999, 0.9995, 0.9999])
    parser.add_argument("--masks", type=int, default=300)
    given = parser.parse_args()
    network = resnet34(num_classes=10)
    shapes = {n: tuple(p.shape) for n, p in network.named_parameters() if p.dim() > 1}
    shapes["conv1.weight"] = (64, 1, 3, 3)  # as tests/bench/extreme/ has it
    for sparsity in given.sparsity:
        counts = SPREADS["erk"](list(shapes.values()), 1 - sparsity)
        generator = torch.Generator().manual_seed(0)
        actual = sum(
            _reaches(
                {n: _drawn(shapes[n], c, generator) for n, c in zip(shapes, counts, strict=True)}
            )
            for _ in range(given.masks)
        )
        print(
            f"{percent(sparsity, 2)}: {sum(counts):,} weights, "
            f"{actual} of {given.masks} masks have a path"
        )


def _drawn(shape: tuple[int, ...], count: int, generator: torch.Generator) -> Tensor:
    """Connectivity [O, I] of output and input channels by ``count`` random weights."""
    places = torch.randint(prod(shape), (2 * count,), generator=generator).unique()
    while len(places) < count:
        places = torch.randint(prod(shape), (4 * count,), generator=generator).unique()
    places = places[torch.randperm(len(places), generator=generator)[:count]]
    pairs = torch.zeros(shape[0], shape[1], dtype=torch.bool)
    pairs.view(-1)[places // prod(shape[2:])] = True
    return pairs


def _reaches(reads: Mapping[str, Tensor]) -> bool:
    here = reads["conv1.weight"].any(1)
    for stage, blocks in enumerate(BLOCKS, 1):
        for block in range(blocks):
            at = f"layer{stage}.{block}."
            inner = (reads[at + "conv1.weight"] & here).any(1)
            branch = (reads[at + "conv2.weight"] & inner).any(1)
            shortcut = reads.get(at + "downsample.0.weight")
            here = branch | (here if shortcut is None else (shortcut & here).any(1))
    return bool((reads["fc.weight"] & here).any())


if __name__ == "__main__":
    main()
