"""Artifacts on disk: safetensors and JSON, one folder each, nothing to unpickle.

folder/
├── artifact.json         format, run, digests of the files, ties, forms, plans, gated kernels,
│                         shapes of masks, history, and a digest of all this
├── weights.safetensors   state dict of the network
├── example.safetensors   example input
└── masks.safetensors     masks, packed, eight positions per byte
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
from pydantic import TypeAdapter
from torch import Tensor, nn

from prunec.artifact import Artifact, Step
from prunec.errors import DamagedRecord, PrunecError, RunError
from prunec.files import link_atomic, sha256_of, write_text_atomic
from prunec.graph.rewriting.plan import Plan
from prunec.models.gates import attach_gates, gates_of
from prunec.models.low_rank import Form, reform
from prunec.models.state import weights_digest
from prunec.models.ties import tie
from prunec.store.records import DIGEST, parse_record, record_digest, record_text
from prunec.tensor_files import read_tensors, write_tensors
from prunec.wording import first_line

FORMAT = 2
UNDIGESTED = 1  # format of an earlier build: only the weights have a digest
_FILES = ("weights", "example", "masks")
_STEPS = TypeAdapter(tuple[Step, ...])


def save_artifact(
    artifact: Artifact, folder: Path, run: str = "", before: Path | None = None
) -> str:
    """Write an artifact into a folder; ``artifact.json`` is written last and completes it.

    Args:
        artifact: the artifact.
        folder: the folder to write.
        run: unique identity of its run.
        before: folder of the artifact before its last step; weights that this step left as they
            were are linked from there, not written again.

    Returns:
        The digest of ``artifact.json``.

    Raises:
        RunError: the folder cannot be written.
    """
    tensors = {
        "weights": artifact.module.state_dict(),
        "example": {str(i): t for i, t in enumerate(artifact.example)},
        "masks": {name: _packed(mask) for name, mask in artifact.masks.items()},
    }
    linked = _linked_weights(artifact, folder, run, before) if before else ""
    written = _FILES[1:] if linked else _FILES
    digests = {name: write_tensors(_file(folder, name), tensors[name]) for name in written}
    record = {
        "format": FORMAT,
        "run": run,
        "files": {"weights": linked, **digests} if linked else digests,
        "ties": dict(artifact.ties),
        "forms": {name: asdict(form) for name, form in artifact.forms.items()},
        "plans": [json.loads(plan.to_json()) for plan in artifact.plans],
        "gated": {name: list(gate.shape) for name, gate in gates_of(artifact.module).items()},
        "masks": {name: list(mask.shape) for name, mask in artifact.masks.items()},
        "history": [asdict(step) for step in artifact.history],
    }
    # Last: a folder without it counts as not written.
    write_text_atomic(folder / "artifact.json", record_text(record))
    return record_digest(record)


def _linked_weights(artifact: Artifact, folder: Path, run: str, before: Path) -> str:
    """Link the weights of the step before, if they are the same; return their file's digest.

    The digest is empty where nothing was linked: other weights, damage, or a file system without
    links.
    """
    digests = [step.digest for step in artifact.history[-2:]]
    if len(digests) < 2 or digests[0] != digests[1]:
        return ""
    try:
        record = _record(before, run, "")
        recorded = str(record["files"]["weights"])
        if record["history"][-1]["digest"] != digests[0]:
            return ""
        if sha256_of(_file(before, "weights")) != recorded:
            return ""
        link_atomic(_file(before, "weights"), _file(folder, "weights"))
    except (RunError, KeyError, IndexError, TypeError, OSError):
        return ""
    return recorded


def load_artifact(
    folder: Path, build: Callable[[], nn.Module], run: str = "", recorded: str = ""
) -> Artifact:
    """Read an artifact: build the recipe's network, cut it by the plans, load the weights.

    Args:
        folder: folder that :func:`save_artifact` wrote.
        build: builds the network of the recipe, with any weights.
        run: identity of the run that the artifact was saved with.
        recorded: digest that :func:`save_artifact` returned; empty where it was not kept.

    Raises:
        DamagedRecord: a file in the folder was changed or is missing.
        RunError: the folder is missing, or the artifact is of another network.
    """
    record = _record(folder, run, recorded)
    try:
        artifact = _restored(folder, record, build)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise RunError(
            f"{folder} is damaged, or was made from another network: {first_line(error)}",
            remedy="Train again, or use the prunec version and the model code that made it.",
        ) from error
    # The files' digests fit; this one also notices files of another artifact.
    if artifact.history and artifact.history[-1].digest != weights_digest(artifact.module):
        raise DamagedRecord(
            f"{_file(folder, 'weights')} does not hold the weights that "
            f"{artifact.history[-1].name} left: their digest does not fit"
        )
    return artifact


def damage(folder: Path, run: str = "", recorded: str = "") -> str:
    """Return a sentence on the first damage in an artifact's folder; empty for none."""
    try:
        for name, digest in _record(folder, run, recorded).get("files", {}).items():
            read_tensors(_file(folder, name), digest)
    except (RunError, AttributeError) as error:
        return str(error)
    return ""


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _record(folder: Path, run: str, recorded: str) -> dict[str, Any]:
    """Return ``artifact.json``, checked to be of this run and unchanged."""
    path = folder / "artifact.json"
    if not path.is_file():
        raise DamagedRecord(
            f"{folder} has no artifact: artifact.json is missing",
            remedy=f"Finish the training: prunec train --resume {folder.parent.parent}",
        )
    record = parse_record(path)
    form = record.get("format")
    if form not in (FORMAT, UNDIGESTED):
        raise RunError(
            f"{folder} has format {str(form)[:40]}, this prunec reads {FORMAT}",
            remedy="Use the prunec version that wrote it, or train again.",
        )
    if form == UNDIGESTED and not run:
        return record
    if DIGEST not in record:
        raise DamagedRecord(f"{path} has no digest: it was changed after it was written")
    if record.get("run") != run or (recorded and record[DIGEST] != recorded):
        raise DamagedRecord(f"{path} is not what this run wrote there: run.json has another digest")
    return record


def _restored(folder: Path, record: Mapping[str, Any], build: Callable[[], nn.Module]) -> Artifact:
    digests = record["files"] if record["format"] == FORMAT else dict.fromkeys(_FILES, "")
    tensors = read_tensors(_file(folder, "example"), digests["example"])
    example = tuple(tensors[str(i)] for i in range(len(tensors)))
    module = build().eval()
    ties = record.get("ties", {})
    # In the order in which the passes changed the network: tied, reformed, cut, gated.
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
    module.load_state_dict(read_tensors(_file(folder, "weights"), digests["weights"]), strict=True)
    packed = read_tensors(_file(folder, "masks"), digests["masks"])
    masks = {name: _unpacked(packed[name], shape) for name, shape in record["masks"].items()}
    history = _STEPS.validate_python(record["history"])
    return Artifact(module.eval(), example, masks, ties, forms, plans, history)


def _packed(mask: Tensor) -> Tensor:
    """Pack a mask: eight positions per byte, the first in the highest bit."""
    return torch.from_numpy(np.packbits(mask.numpy(force=True)))


def _unpacked(packed: Tensor, shape: list[int]) -> Tensor:
    bits = np.unpackbits(packed.numpy())  # unpackbits(count=…) would fill up a file that is cut off
    return torch.from_numpy(bits[: math.prod(shape)].reshape(shape)).bool()
