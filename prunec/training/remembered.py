"""Measured settings kept in the user's cache, by machine, network, batch and recipe.

A file holds the chosen settings and all measurements; ``prunec train --retune`` measures again.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunec.errors import RunError
from prunec.files import cache_folder, write_text_atomic
from prunec.recipe import TrainSpec
from prunec.training.settings import Settings

SCHEMA = 1
STATED = ("precision", "channels_last", "threads", "compile", "capture", "optimizer", "auxiliary")


class Remembered:
    """The measured settings of one machine, network, batch and recipe.

    Attributes:
        of: the key, also stored in the file.
        path: the file.
    """

    def __init__(self, of: Mapping[str, Any], folder: Path | None = None) -> None:
        """Name the file.

        Args:
            of: what a choice may depend on.
            folder: where such files lie; by default in the user's cache.
        """
        self.of = {"schema": SCHEMA, **of}
        text = json.dumps(self.of, sort_keys=True)
        name = f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        self.path = (folder or cache_folder() / "settings") / name

    def settings(self) -> Settings | None:
        """Return the chosen settings; None if the file is missing or unreadable."""
        try:
            record = json.loads(self.path.read_text("utf-8"))
            return Settings(**record["chosen"]) if record["of"] == self.of else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, chosen: Settings, measured: list[dict[str, Any]]) -> None:
        """Write the chosen settings and the measurements; errors of the cache are ignored."""
        record = {"of": self.of, "chosen": asdict(chosen), "measured": measured}
        try:
            write_text_atomic(self.path, json.dumps(record, indent=1) + "\n")
        except RunError:
            return


def remembered_of(
    model: nn.Module, batch: tuple[Tensor, Tensor], train: TrainSpec, folder: Path | None = None
) -> Remembered:
    """Return the measured settings of a network's steps on its device."""
    shapes = [(name, tuple(value.shape)) for name, value in model.state_dict().items()]
    parts = [(name, type(part).__name__) for name, part in model.named_modules()]
    network = hashlib.sha256(repr((shapes, parts)).encode()).hexdigest()
    device = batch[0].device
    on_cuda = device.type == "cuda"
    asked = train.model_dump(mode="json", include=set(STATED))
    of = {
        "device": torch.cuda.get_device_name(device) if on_cuda else platform.processor(),
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version() if on_cuda else None,  # type: ignore[no-untyped-call]
        "network": network,
        "batch": [list(batch[0].shape), list(batch[1].shape)],
        "train": asked,
    }
    return Remembered(of, folder)
