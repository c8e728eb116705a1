"""Program of one of several processes that train a segmentation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file
from small_segmentation import small_context, without_dropout

from prunec.processes import joined
from prunec.training.loop import fit
from prunec.training.method import Method


def segment(folder: Path) -> None:
    """Train; the first process leaves the weights."""
    with joined() as processes:
        model = without_dropout()
        fit(model, Method(), replace(small_context(folder), processes=processes))
        if processes.first:
            save_file(model.state_dict(), folder / "final.safetensors")
