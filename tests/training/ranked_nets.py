"""A small FastGRNN whose ranks are learned in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from small_training import small_context
from torch import nn

from prunec.artifact import Artifact
from prunec.models.fastgrnn import FastGRNN, fastgrnn
from prunec.passes.train_str_rank import TrainStrRank
from prunec.training.method import Moment


def moment(number: int, steps: int = 100, rate: float = 0.1) -> Moment:
    return Moment(0, number, steps, 1, rate)


def net(rank_w: int = 0, rank_u: int = 0) -> FastGRNN:
    torch.manual_seed(5)
    return fastgrnn(3, inputs=8, hidden=12, rank_w=rank_w, rank_u=rank_u)


def artifact(module: nn.Module | None = None) -> Artifact:
    return Artifact((module or net()).eval(), (torch.randn(2, 1, 8, 8),))


TRAINING = TrainStrRank(factor=("cell.?",), sparsity=0.7, ramp=0.5)
QUICK = {"epochs": 8, "optimizer": {"name": "Adam"}, "learning_rate": 0.01, "weight_decay": 1e-4}


def trained(folder: Path, step: TrainStrRank = TRAINING, **settings: Any) -> Artifact:
    return step(artifact(), small_context(folder, **{**QUICK, **settings}))
