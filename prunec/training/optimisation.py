"""The optimiser of the loop and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from prunec.recipe import TrainSpec


def make_optimizer(model: nn.Module, train: TrainSpec) -> torch.optim.SGD:
    """Return SGD over the parameters that want gradients; weight decay on kernels only.

    A kernel is a parameter of more than one axis: biases and the scales and shifts of norms are
    not decayed.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    kernels = [p for p in parameters if p.ndim > 1]
    others = [p for p in parameters if p.ndim <= 1]
    groups = [
        {"params": kernels, "weight_decay": train.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=train.learning_rate,
        momentum=train.momentum,
        nesterov=train.nesterov,
        foreach=True,
    )


def learning_rate(train: TrainSpec, step: int, steps_per_epoch: int) -> float:
    """Return the rate at ``step`` of the whole training, from 0.

    With W warm-up steps of T: base·(step+1)/W while step < W, then
    base·½(1 + cos π(step−W)/(T−W)), which is zero after the last step.
    """
    total = train.epochs * steps_per_epoch
    warmup = min(round(train.warmup_epochs * steps_per_epoch), total)
    if step < warmup:
        return train.learning_rate * (step + 1) / warmup
    return train.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def momentum_of(model: nn.Module, optimizer: torch.optim.SGD) -> dict[str, Tensor]:
    """Return the momentum of every parameter that has one, by the parameter's name."""
    found = {}
    for name, parameter in model.named_parameters():
        buffer = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if buffer is not None:
            found[name] = buffer
    return found


def load_momentum(
    model: nn.Module, optimizer: torch.optim.SGD, momentum: Mapping[str, Tensor]
) -> None:
    """Put back what :func:`momentum_of` returned."""
    for name, parameter in model.named_parameters():
        if name in momentum:
            buffer = torch.empty_like(parameter, requires_grad=False).copy_(momentum[name])
            optimizer.state[parameter]["momentum_buffer"] = buffer
