"""What a network is worth when its dense phase ends: what the sparse one is compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from prunec.tasks.quality import DECISIVE
from prunec.training.method import Moment

PREFIX = "dense phase: "  # in the sums of an unfinished epoch


def dense_ends(epochs: float | None, end: Moment) -> bool:
    """Say whether the dense phase ends with the epoch at whose end this moment is."""
    return epochs is not None and end.number > 0 and end.number == _first(epochs, end)


def dense_ends_within(epochs: float | None, moment: Moment) -> bool:
    """Say whether the step that follows is the first after the dense phase, within an epoch.

    So is the first of all, of a network that is to be made sparse from the start.
    """
    if epochs is None or moment.number != _first(epochs, moment):
        return False
    return moment.step > 0 or moment.number == 0


def _first(epochs: float, moment: Moment) -> int:
    """The number of the first step that is not dense."""
    return math.ceil(epochs * moment.steps_per_epoch - 1e-9)


def in_tally(dense: Mapping[str, float]) -> dict[str, float]:
    """Return what is known of the dense phase as sums of an epoch have it in a checkpoint."""
    return {PREFIX + key: value for key, value in dense.items()}


def from_tally(tally: Mapping[str, float]) -> dict[str, float]:
    """Return the same back."""
    found = {key: value for key, value in tally.items() if key.startswith(PREFIX)}
    return {key.removeprefix(PREFIX): value for key, value in found.items()}


def dense_remarks(
    history: Sequence[Mapping[str, Any]],
) -> tuple[tuple[str, ...], dict[str, object]]:
    """Return a sentence and the detail that say what the network was worth when it was dense.

    Both are empty where the training had no dense phase, or ended within it.
    """
    dense: Mapping[str, float] = next((h["dense_phase"] for h in history if "dense_phase" in h), {})
    found = [quality for quality in DECISIVE if quality.key in dense]
    if not found:
        return (), {}
    quality, epochs = found[0], dense["epochs"]
    value = float(dense[quality.key])
    after = f"after the dense phase of {epochs:.3g} epochs" if epochs else "before the training"
    note = f"test {quality.name} {value:.2f} % {after}"
    return (note,), {f"dense_phase_{quality.key}": value}
