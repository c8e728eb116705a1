"""Published figures of ResNet-50: shapes of its layers, per-layer budgets, sparse MACs."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import Tensor, nn

TABLES = Path(__file__).parent.parent / "tables"
TOTAL = 4_089_184_256
WEIGHTS = 25_502_912

STR = {
    "79.55": 766, "87.7": 402, "90.23": 343, "95.15": 162, "96.11": 127, "98.05": 73, "98.98": 47
}  # fmt: skip
"""Overall sparsity in percent → millions of MACs as printed, by the table of budgets."""


def table(name: str) -> list[dict[str, str]]:
    with (TABLES / name).open(newline="") as lines:
        return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def shapes(arch: str = "resnet50") -> dict[str, dict[str, str]]:
    """Layer → its row, in the order of the network."""
    return {row["layer"]: row for row in table("layer_shapes.csv") if row["arch"] == arch}


def str_density(sparsity: str) -> dict[str, float]:
    """Layer → share of weights that are not zero, of one published run."""
    rows = table("str_budgets_resnet50.csv")
    column = f"sparsity_pct@{sparsity}"
    known = shapes()
    return {r["layer"]: 1 - float(r[column]) / 100 for r in rows if r["layer"] in known}


def erk_density(sparsity: float, *, dense_stem: bool) -> dict[str, float]:
    """Erdős–Rényi-kernel: density ∝ (inputs + outputs + kernel sides) / weights, at most 1.

    RigL (Evci et al., ICML 2020), section 3: layers that would exceed 1 are dense and the factor
    is solved again for the others. A stem that is dense stays within the budget.
    """
    rows = shapes()
    size = {name: int(row["params"]) for name, row in rows.items()}
    raw = {}
    for name, row in rows.items():
        sides = int(row["out_ch"]) + int(row["in_ch_per_group"])
        raw[name] = (sides + (0 if name == "fc" else 2 * int(row["kernel"]))) / size[name]
    full = {"conv1"} if dense_stem else set()
    while True:
        left = sum(size.values()) * (1 - sparsity) - sum(size[name] for name in full)
        factor = left / sum(raw[name] * size[name] for name in rows if name not in full)
        above = {name for name in rows if name not in full and factor * raw[name] > 1}
        if not above:
            return {name: 1.0 if name in full else factor * raw[name] for name in rows}
        steepest = max(raw[name] for name in above)
        full |= {name for name in above if raw[name] == steepest}


def masks_of(module: nn.Module, density: dict[str, float]) -> dict[str, Tensor]:
    """Masks that keep ``density`` of each layer's weights, to the nearest weight."""
    masks = {}
    for name, share in density.items():
        weight = module.get_parameter(f"{name}.weight")
        size = weight.numel()
        order = torch.arange(size) * 7919 % size  # a prime: every place once
        masks[f"{name}.weight"] = (order < round(size * share)).view(weight.shape)
    return masks
