"""When training ends before its last epoch, told by its metrics alone: a resumed one agrees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prunec.schema import Stop

Metrics = Mapping[str, Any]


def reason_to_stop(stop: Stop, history: Sequence[Metrics]) -> str:
    """Return why no further epoch is wanted, or an empty text.

    Args:
        stop: what the recipe says.
        history: the metrics of every finished epoch.
    """
    settled = [epoch["test_accuracy"] for epoch in history if epoch["settled"]]
    minutes = sum(epoch["seconds"] for epoch in history) / 60
    if stop.accuracy is not None and settled and settled[-1] >= stop.accuracy:
        return f"test accuracy {settled[-1]:.2f} % reached train.stop.accuracy = {stop.accuracy:g}"
    if stop.patience is not None and len(settled) - 1 - _best(settled) >= stop.patience:
        return f"no better test accuracy for train.stop.patience = {stop.patience} epochs"
    if stop.minutes is not None and minutes >= stop.minutes:
        return f"train.stop.minutes = {stop.minutes:g} are spent"
    return ""


def is_best(history: Sequence[Metrics]) -> bool:
    """Say whether the last epoch is the first of the best among those whose budget is reached."""
    settled = [epoch["test_accuracy"] for epoch in history if epoch["settled"]]
    return bool(history and history[-1]["settled"]) and _best(settled) == len(settled) - 1


def _best(accuracies: Sequence[float]) -> int:
    """The place of the first best; -1 where there is none."""
    return accuracies.index(max(accuracies)) if accuracies else -1
