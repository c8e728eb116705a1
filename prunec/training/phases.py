"""Phases of a training: the method's division of the epochs, and warnings about short phases.

Phases are printed before the training and in the run's report; a recipe whose phases do not fit is
refused before any work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prunec.errors import PassError
from prunec.recipe.lengths import key_of
from prunec.wording import IN_EPOCHS

Phases = Mapping[str, float]
"""Name of a phase → its epochs, in order."""

DENSE, SURVIVORS = "dense", "survivors"
"""Phase before anything is masked; phase that trains the remaining weights."""

LITTLE = 0.1
"""Share of the training after the choice of what stays below which a warning is printed, as it is
below one epoch."""


def divided(table: object, name: str, epochs: int, parts: Phases) -> dict[str, float]:
    """Return the phases of a training: the given parts, and the survivors' from there to the end.

    Args:
        table: options of the pass, which state the parts by these names.
        name: name of the pass.
        epochs: epochs of the whole training.
        parts: name of the option and phase → its epochs.

    Raises:
        PassError: the parts are longer than the training.
    """
    left = epochs - sum(parts.values())
    if left < 0:
        keys = [key_of(table, part) for part in parts]
        raise PassError(
            f"{name}: {' + '.join(keys)} is {sum(parts.values()):g}, train.epochs only {epochs}",
            remedy=_shorter(keys),
        )
    return {**parts, SURVIVORS: left}


def _shorter(keys: Sequence[str]) -> str:
    in_epochs = [key for key in keys if key.endswith(IN_EPOCHS)]
    if not in_epochs:
        return f"Let {' and '.join(keys)} together be less than 1: they are shares."
    shares = ", ".join(f"{key.removesuffix(IN_EPOCHS)} = 0.25" for key in in_epochs)
    return (
        f"State shares of the training, which fit any train.epochs ({shares}), raise train.epochs, "
        f"or lower {' or '.join(in_epochs)}."
    )


def until(epochs: int, then: str = SURVIVORS, **ends: float) -> dict[str, float]:
    """Return phases that end in turn at shares of the training, and the last one after them."""
    before, phases = 0.0, {}
    for phase, end in ends.items():
        phases[phase] = max(0.0, end - before) * epochs
        before = max(before, end)
    return {**phases, then: (1 - before) * epochs}


def described(phases: Phases, epochs: int, warmup: float) -> str:
    """Return the phases in one line, in epochs: ``12 epochs: dense 3, select 3, survivors 6``."""
    of = f"{epochs} epoch{'' if epochs == 1 else 's'}"
    risen = f"; the learning rate rises for {_short(warmup)}" if warmup else ""
    parts = ", ".join(f"{phase} {_short(length)}" for phase, length in phases.items() if length)
    return f"{of}{parts and ': '}{parts}{risen}"


def too_few(phases: Phases, epochs: int) -> str:
    """Return a warning if little or nothing trains after the choice of what stays; else empty."""
    left = phases.get(SURVIVORS)
    if left is None or (left >= 1 and left >= LITTLE * epochs):
        return ""
    what = f"only {_short(left)} of {epochs} epochs train" if left else "no epoch trains"
    return (
        f"warning: {what} what is left after the choice; expect a lower accuracy. "
        "Raise train.epochs, or end the choice earlier"
    )


def too_rare(options: object, steps: int) -> tuple[str, ...]:
    """Return warnings about actions every n steps in a training of fewer steps."""
    rhythms = {key: value for key, value in vars(options).items() if key.endswith("_steps")}
    return tuple(
        f"warning: {key} = {every}, and the training has {steps} steps in all: what is done every "
        f"{every} steps is not done once. Lower {key}, or raise train.epochs"
        for key, every in rhythms.items()
        if every >= steps
    )


def _short(epochs: float) -> str:
    return f"{epochs:.2f}".rstrip("0").rstrip(".")
