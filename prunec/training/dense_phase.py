"""Quality of a network at the end of its dense phase, with which the sparse network is compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from prunec.tasks.quality import DECISIVE
from prunec.training.evaluation import Evaluation
from prunec.training.method import Moment

PREFIX = "dense phase: "  # in the sums of an unfinished epoch

CLASS = "class "
"""Beginning of the keys of the accuracy per class, before the number of the class."""


def dense_ends(epochs: float | None, end: Moment) -> bool:
    """Return whether the dense phase ends with the epoch that ends at this moment."""
    return epochs is not None and end.number > 0 and end.number == _first(epochs, end)


def dense_ends_within(epochs: float | None, moment: Moment) -> bool:
    """Return whether the next step is the first after the dense phase, within an epoch.

    For a network that is sparse from the start, this is the very first step.
    """
    if epochs is None or moment.number != _first(epochs, moment):
        return False
    return moment.step > 0 or moment.number == 0


def _first(epochs: float, moment: Moment) -> int:
    """Return the number of the first step after the dense phase."""
    return math.ceil(epochs * moment.steps_per_epoch - 1e-9)  # 1e-9: rounding of the product


def in_record(test: Evaluation, epochs: float) -> dict[str, float]:
    """Return the results of the dense phase for the metrics of its epoch, all in percent.

    Accuracy per class is under ``class 0``, ``class 1`` …; classes without samples are left out.
    """
    classes = {
        f"{CLASS}{place}": 100 * right / samples
        for place, (samples, right) in enumerate(test.classes)
        if samples
    }
    return {**test.score.figures, **classes, "epochs": epochs}


def in_tally(dense: Mapping[str, float]) -> dict[str, float]:
    """Return the results of the dense phase as sums of an epoch in a checkpoint."""
    return {PREFIX + key: value for key, value in dense.items()}


def from_tally(tally: Mapping[str, float]) -> dict[str, float]:
    """Return the results of the dense phase from such sums."""
    dense = {key: value for key, value in tally.items() if key.startswith(PREFIX)}
    return {key.removeprefix(PREFIX): value for key, value in dense.items()}


def dense_remarks(
    history: Sequence[Mapping[str, Any]],
) -> tuple[tuple[str, ...], dict[str, object]]:
    """Return a sentence and the detail on the network's quality when it was dense.

    Both are empty if the training had no dense phase, or ended within it.
    """
    dense: Mapping[str, float] = next((h["dense_phase"] for h in history if "dense_phase" in h), {})
    qualities = [quality for quality in DECISIVE if quality.key in dense]
    if not qualities:
        return (), {}
    quality, epochs = qualities[0], dense["epochs"]
    value = float(dense[quality.key])
    after = f"after the dense phase of {epochs:.3g} epochs" if epochs else "before the training"
    note = f"test {quality.name} {value:.2f} % {after}"
    return (note,), {f"dense_phase_{quality.key}": value}
