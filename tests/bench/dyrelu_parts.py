"""Ablation of DyReLU in EAST where few weights are left.

    OMP_NUM_THREADS=1 python tests/bench/dyrelu_parts.py offsets --seed 0

Trains ResNet-20 by EAST at 99.5 % on the embedded images (12 epochs, some two minutes of a core),
where DyReLU learns as a ``whole``, its ``slopes`` a₁ and a₂ alone, its ``offsets`` b₁ and b₂ alone,
or not at all (``none``). It prints what ``prunec train`` prints.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor

from prunec.cli.launch import train
from prunec.sparsity import two_lines

RECIPE = str(Path(__file__).parent / "extreme" / "east.toml")
CHANGES = [
    "model.name=prunec.models.resnet_cifar:resnet20",
    "model.options={in_channels=1}",
    'model.edit=[{module="conv1",set={stride=2}}]',
    "pass.train-east.sparsity=0.995",
    "train.threads=1",
]
larger = two_lines.Larger.apply


def slopes(x: Tensor, a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
    """DyReLU without offsets."""
    result: Tensor = larger(x, a1, a2, 0 * b1, 0 * b2)
    return result


def offsets(x: Tensor, a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
    """DyReLU with the slopes of ReLU."""
    result: Tensor = larger(x, 0 * a1 + 1, 0 * a2, b1, b2)
    return result


def main() -> None:
    """Train once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", choices=["whole", "slopes", "offsets", "none"])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    part = {"slopes": slopes, "offsets": offsets}.get(given.part)
    if part:
        two_lines.Larger.apply = staticmethod(part)
    changes = [*CHANGES, f"seed={given.seed}", f"name=east-{given.part}-{given.seed}"]
    if given.part == "none":
        changes.append("pass.train-east.dyrelu_until=0")
    train(RECIPE, changes, device="cpu", resume=False, root=Path("runs"))


if __name__ == "__main__":
    main()
