"""Plain training, no sparsity: the twin that other methods are compared with."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from prunec.artifact import Artifact
from prunec.contract import Remarks, Training
from prunec.tasks.quality import measured
from prunec.training.context import Context
from prunec.training.loop import fit
from prunec.training.method import Method


@dataclass(frozen=True)
class TrainDense(Training):
    """Train all weights, as the recipe's [train] states."""

    forbids: ClassVar[frozenset[str]] = frozenset({"folded"})
    adds: ClassVar[frozenset[str]] = frozenset({"trained"})

    def train(self, artifact: Artifact, context: Context) -> tuple[Artifact, Remarks]:
        """Return the artifact with trained weights, and what it is worth on the test images."""
        module = copy.deepcopy(artifact.module)
        history = fit(module, Method(), context)
        module = module.cpu().to(memory_format=torch.contiguous_format).eval()
        last = history[-1]
        key, name, value = measured(last)
        own, _, learned = measured(last, "train")
        note = (
            f"test {name} {value:.2f} % after {last['epoch']} epochs, "
            f"training {name} {learned:.2f} %"
        )
        details: dict[str, object] = {
            key: value,
            own: learned,
            "epochs": last["epoch"],
        }
        return replace(artifact, module=module), Remarks((note,), details)
