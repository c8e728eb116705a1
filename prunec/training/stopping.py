"""Early stopping by metrics alone, so that a resumed training decides alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prunec.recipe.lengths import key_of
from prunec.recipe.training import TrainSpec
from prunec.tasks.quality import MIOU, Quality, decisive

Metrics = Mapping[str, Any]


def reason_to_stop(train: TrainSpec, history: Sequence[Metrics]) -> str:
    """Return why training should stop now, or an empty text.

    Args:
        train: training section of the recipe.
        history: metrics of every finished epoch.
    """
    stop = train.stop
    quality, settled = _settled(history)
    wanted = stop.miou if quality is MIOU else stop.accuracy
    minutes = sum(epoch["seconds"] for epoch in history) / 60
    if wanted is not None and settled and settled[-1] >= wanted:
        reached = f"test {quality.name} {settled[-1]:.2f} %"
        return f"{reached} reached train.stop.{quality.key} = {wanted:g}"
    patience = stop.patient_epochs(train.epochs)
    if patience is not None and len(settled) - 1 - _best(settled) >= patience:
        key = key_of(stop, "patience")
        stated = f"train.stop.{key} = {getattr(stop, key):g}"
        return f"no better test {quality.name} for {patience} epochs, {stated}"
    if stop.minutes is not None and minutes >= stop.minutes:
        return f"train.stop.minutes = {stop.minutes:g} are spent"
    return ""


def require_metrics(history: Sequence[Metrics]) -> None:
    """Raise KeyError, TypeError or ValueError if an epoch lacks a metric that is used here."""
    for epoch in history:
        if int(epoch["epoch"]) < 1 or not isinstance(epoch["settled"], bool):
            raise ValueError(f"there is no epoch {epoch['epoch']}")
        dense = epoch.get("dense_phase", {"epochs": 0.0})
        figures = (k for k in epoch if k.startswith(("train_", "test_", "loss", "learning_")))
        numbers = [epoch["seconds"], dense["epochs"], *dense.values(), *map(epoch.get, figures)]
        if not all(isinstance(number, (int, float)) for number in numbers):
            raise TypeError(f"a metric of epoch {epoch['epoch']} is not a number")
    for value in _settled(history)[1]:
        float(value)


def is_best(history: Sequence[Metrics]) -> bool:
    """Return whether the last epoch is the first best one among those that reached their budget."""
    _, settled = _settled(history)
    return bool(history and history[-1]["settled"]) and _best(settled) == len(settled) - 1


def best_epoch(history: Sequence[Metrics]) -> int:
    """Return the number of the best epoch; 0 if none reached its budget."""
    numbers = [int(epoch["epoch"]) for epoch in history if epoch["settled"]]
    return numbers[_best(_settled(history)[1])] if numbers else 0


def _settled(history: Sequence[Metrics]) -> tuple[Quality, list[float]]:
    """Return the deciding figure, and its values in the epochs that reached their budget."""
    quality = decisive(history[0] if history else (), "test_")
    key = f"test_{quality.key}"
    return quality, [epoch[key] for epoch in history if epoch["settled"]]


def _best(values: Sequence[float]) -> int:
    """Return the index of the first maximum; −1 if there is none."""
    return values.index(max(values)) if values else -1
