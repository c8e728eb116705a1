"""Artifacts on disk: safetensors and JSON, one folder each, nothing to unpickle.

folder/
├── artifact.json         format, ties, forms, plans, gated kernels, masks' shapes, history
├── weights.safetensors   the network's state
├── example.safetensors   the example input
└── masks.safetensors     masks, eight positions a byte
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunec.artifact import Artifact, Step
from prunec.errors import PrunecError, RunError
from prunec.files import read_tensors, write_tensors, write_text_atomic
from prunec.graph.rewriting.plan import Plan
from prunec.models.gates import attach_gates, gates_of
from prunec.models.low_rank import Form, reform
from prunec.models.ties import tie
from prunec.wording import first_line

FORMAT = 1


def save_artifact(artifact: Artifact, folder: Path) -> None:
    """Write an artifact into a folder; ``artifact.json`` comes last and makes it whole.

    Raises:
        RunError: the folder cannot be written.
    """
    write_tensors(folder / "weights.safetensors", artifact.module.state_dict())
    write_tensors(
        folder / "example.safetensors", {str(i): t for i, t in enumerate(artifact.example)}
    )
    packed = {name: _packed(mask) for name, mask in artifact.masks.items()}
    write_tensors(folder / "masks.safetensors", packed)
    record = {
        "format": FORMAT,
        "ties": dict(artifact.ties),
        "forms": {name: asdict(form) for name, form in artifact.forms.items()},
        "plans": [json.loads(plan.to_json()) for plan in artifact.plans],
        "gated": {name: list(gate.shape) for name, gate in gates_of(artifact.module).items()},
        "masks": {name: list(mask.shape) for name, mask in artifact.masks.items()},
        "history": [asdict(step) for step in artifact.history],
    }
    write_text_atomic(folder / "artifact.json", json.dumps(record, indent=1) + "\n")


def load_artifact(folder: Path, build: Callable[[], nn.Module]) -> Artifact:
    """Read an artifact: the constructor's network, cut by the plans, filled with the weights.

    Args:
        folder: as :func:`save_artifact` left it.
        build: makes the network of the recipe; its weights do not matter.

    Raises:
        RunError: the folder is missing, damaged, or of another network.
    """
    try:
        record = json.loads((folder / "artifact.json").read_text("utf-8"))
        return _restored(folder, record, build)
    except FileNotFoundError as error:
        raise RunError(
            f"{folder} holds no artifact: {Path(str(error.filename)).name} is missing",
            remedy="Train the run to its end: prunec train --resume.",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise RunError(
            f"{folder} is damaged, or was made from another network: {first_line(error)}",
            remedy="Train again, or use the prunec version and the model code that made it.",
        ) from error


def _restored(folder: Path, record: Mapping[str, Any], build: Callable[[], nn.Module]) -> Artifact:
    if record["format"] != FORMAT:
        raise RunError(
            f"{folder} has format {record['format']}, this prunec reads {FORMAT}",
            remedy="Use the prunec version that wrote it, or train again.",
        )
    tensors = read_tensors(folder / "example.safetensors")
    example = tuple(tensors[str(i)] for i in range(len(tensors)))
    module = build().eval()
    ties = record.get("ties", {})
    tie(module, ties)
    forms = {name: Form(**form) for name, form in record.get("forms", {}).items()}
    reform(module, forms)
    try:
        plans = tuple(Plan.from_json(json.dumps(plan)) for plan in record["plans"])
        for plan in plans:
            module = plan.apply(module, example)
    except PrunecError as error:
        raise RunError(f"{folder}: {error.message}", remedy=error.remedy) from error
    gates = {n: module.get_parameter(n).new_ones(shape) for n, shape in record["gated"].items()}
    attach_gates(module, gates)
    module.load_state_dict(read_tensors(folder / "weights.safetensors"), strict=True)
    packed = read_tensors(folder / "masks.safetensors")
    masks = {name: _unpacked(packed[name], shape) for name, shape in record["masks"].items()}
    history = tuple(_step(step) for step in record["history"])
    return Artifact(module.eval(), example, masks, ties, forms, plans, history)


def _step(record: dict[str, Any]) -> Step:
    pairs = {key: tuple(record[key]) for key in ("facts", "macs", "params", "notes")}
    return Step(**{**record, **pairs})


def _packed(mask: Tensor) -> Tensor:
    """Eight positions a byte, the first in the highest bit."""
    return torch.from_numpy(np.packbits(mask.numpy(force=True)))


def _unpacked(packed: Tensor, shape: list[int]) -> Tensor:
    bits = np.unpackbits(packed.numpy())  # unpackbits(count=…) would fill up a file that is cut off
    return torch.from_numpy(bits[: math.prod(shape)].reshape(shape)).bool()
