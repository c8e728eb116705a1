"""Durations of phases of a training, as a share of it or in epochs.

A duration ``dense`` is stated by one of two keys, never both: ``dense = 0.25``, a share of
``train.epochs``, or ``dense_epochs = 3``. Shares fit any ``train.epochs``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from prunec.wording import IN_EPOCHS as SUFFIX

NEAR = 0.0101
"""Tolerance in epochs: a share that ends this close to a whole epoch ends with it.

0.3333 of 12 epochs is 3.9996: meant is the fourth. Four decimals of a share are exact to 0.0001, so
that the tolerance covers trainings of up to a hundred epochs.
"""

Share = Annotated[float, Field(ge=0, le=1, description="share of the training")]
Epochs = Annotated[float, Field(ge=0, description="in epochs, in place of the share")]


def twin_of(key: str) -> str:
    """Return the other key of the same duration: ``dense`` ↔ ``dense_epochs``."""
    return key.removesuffix(SUFFIX) if key.endswith(SUFFIX) else key + SUFFIX


def key_of(table: object, name: str) -> str:
    """Return the key that states a duration; the share's key where neither does."""
    return name + SUFFIX if getattr(table, name + SUFFIX) is not None else name


def stated_wrong(table: object, *names: str, needed: bool = False) -> str:
    """Return what is wrong with durations: stated twice, or missing; empty where nothing is.

    Args:
        table: object with the attributes ``name`` and ``name_epochs`` for each of the names.
        names: names of the durations.
        needed: whether each must be stated.
    """
    for name in names:
        stated = [key for key in (name, name + SUFFIX) if getattr(table, key) is not None]
        if len(stated) == 2:
            return (
                f"must have {name} (a share of the training) or {name + SUFFIX} (epochs), found "
                "both: leave one of them out"
            )
        if needed and not stated:
            return (
                f"must have {name}, a share of the training ({name} = 0.25), or {name + SUFFIX}, "
                "in epochs"
            )
    return ""


def with_epochs_named(document: Mapping[str, Any]) -> dict[str, Any]:
    """Rename, in a recipe's document, keys of older recipes whose values are epochs.

    Milestones and patience used to be in epochs; values of 1 and more cannot be shares and are
    still read as epochs.
    """
    train = document.get("train")
    if not isinstance(train, Mapping):
        return dict(document)
    tables = {table: _renamed(train[table], key) for table, key in NAMED_LATE if table in train}
    return {**document, "train": {**train, **tables}}


NAMED_LATE = (("schedule", "milestones"), ("stop", "patience"))
"""(table of ``train``, its key that used to be in epochs)."""


def _renamed(table: Any, key: str) -> Any:
    stated = table.get(key) if isinstance(table, Mapping) else None
    numbers = stated if isinstance(stated, list) else [stated]
    # n is not True: a boolean is an int in Python.
    in_epochs = [n for n in numbers if isinstance(n, int | float) and n is not True and n >= 1]
    if not in_epochs or key + SUFFIX in table:
        return table
    return {**{k: v for k, v in table.items() if k != key}, key + SUFFIX: stated}


def in_epochs(table: object, name: str, epochs: int) -> float:
    """Return a duration in epochs, for a training of ``epochs``; 0 where it is not stated."""
    share, stated = getattr(table, name), getattr(table, name + SUFFIX)
    if stated is not None:
        return float(stated)
    return share_in_epochs(share or 0.0, epochs)


def share_in_epochs(share: float, epochs: int) -> float:
    """Return a share of ``epochs``, rounded to a whole number where it is within the tolerance."""
    exact = share * epochs
    whole = round(exact)
    return float(whole) if abs(exact - whole) < NEAR else exact


def in_whole_epochs(table: object, name: str, epochs: int, least: int = 0) -> int:
    """Return a duration in whole epochs, rounded down, but at least ``least``."""
    return max(least, math.floor(in_epochs(table, name, epochs)))
