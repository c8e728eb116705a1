"""Recipes on equal terms, of a network and images that take seconds."""

from __future__ import annotations

import re
from pathlib import Path

HEAD = """
name = "NAME"
device = "cpu"
[model]
name = "end_to_end_net:Tiny"
[data]
name = "imagefolder"
root = "ROOT"
[train]
epochs = 2
batch_size = 16
learning_rate = 0.05
precision = "fp32"
channels_last = false
threads = 1
[verify.budget]
latency_ratio = false
"""
PASSES = {
    "dense": 'name = "train-dense"',
    "gmp": 'name = "train-gmp"\nsparsity = 0.5',
    "rigl": 'name = "train-rigl"\nsparsity = 0.5',
}
CUT = """
[[pass]]
name = "compact-masks"
[[pass]]
name = "fold-batchnorm"
"""


def write_recipe(folder: Path, name: str, **changes: str) -> str:
    """Write a recipe; return its path."""
    text = f"{HEAD}[[pass]]\n{PASSES[name]}\n{CUT}".replace("NAME", name)
    text = text.replace("ROOT", str(folder / "images"))
    for old, new in changes.items():
        text = re.sub(rf"^{old} = .*$", f"{old} = {new}", text, flags=re.MULTILINE)
    path = folder / f"{name}.toml"
    path.write_text(text)
    return str(path)
