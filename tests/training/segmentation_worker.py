"""One of several processes that learn to segment: segmentation_worker.py FOLDER."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from small_segmentation import small_context, without_dropout

from prunec.processes import joined
from prunec.training.loop import fit
from prunec.training.method import Method

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    with joined() as processes:
        model = without_dropout()
        fit(model, Method(), replace(small_context(folder), processes=processes))
        if processes.first:
            save_file(model.state_dict(), folder / "final.safetensors")
