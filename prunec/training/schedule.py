"""Learning rate as a function of the recipe and the step, so that resuming needs no state."""

from __future__ import annotations

import math
from collections.abc import Sequence

from prunec.recipe.training import Schedule, TrainSpec


def learning_rate(train: TrainSpec, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate at ``step`` of the whole training, from 0.

    With W warm-up steps of T it is base·(step+1)/W while step < W, then base times the factor of
    ``train.schedule``. Schedules by epoch keep one rate per epoch; their warm-up is
    base·(epoch+1)/W, with W in epochs.
    """
    total = train.epochs * steps_per_epoch
    warmup = min(round(train.rising * steps_per_epoch), total)
    stride = steps_per_epoch if train.schedule.per == "epoch" else 1
    step = step // stride * stride
    if step < warmup:
        # A warm-up that ends within an epoch has reached the base rate there.
        return train.learning_rate * min(step + stride, warmup) / warmup
    share = (step - warmup) / (total - warmup)
    milestones = train.schedule.at_epochs(train.epochs)
    return train.learning_rate * _factor(train.schedule, share, step / steps_per_epoch, milestones)


def _factor(schedule: Schedule, share: float, epochs: float, milestones: Sequence[float]) -> float:
    """Return the factor of the base rate after ``share`` of the steps since warm-up and
    ``epochs``.
    """
    match schedule.name:
        case "cosine":
            return schedule.end + (1 - schedule.end) * 0.5 * (1 + math.cos(math.pi * share))
        case "linear":
            return 1 - (1 - schedule.end) * share
        case "multistep":
            passed = sum(milestone <= epochs for milestone in milestones)
            return math.pow(schedule.factor, passed)
        case "exponential":
            if schedule.end:
                return math.pow(schedule.end, share)
            return math.pow(schedule.factor, epochs)
        case "constant":
            return 1.0
