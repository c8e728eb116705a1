"""Lengths of a training: a share of it, or epochs.

A length ``dense`` is one of two keys, never both: ``dense = 0.25``, a share of ``train.epochs``, or
``dense_epochs = 3``. What is stated in shares fits any ``train.epochs``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from prunec.wording import IN_EPOCHS as SUFFIX

NEAR = 0.0101
"""Epochs: a share that ends so near to a whole epoch ends with it, as 0.3333 of 12 with the 4th."""

Share = Annotated[float, Field(ge=0, le=1, description="share of the training")]
Epochs = Annotated[float, Field(ge=0, description="in epochs, in place of the share")]


def twin_of(key: str) -> str:
    """Return the other key of the same length: ``dense`` and ``dense_epochs``."""
    return key.removesuffix(SUFFIX) if key.endswith(SUFFIX) else key + SUFFIX


def key_of(table: object, name: str) -> str:
    """Return the key by which a length is stated; its share's where it is not."""
    return name + SUFFIX if getattr(table, name + SUFFIX) is not None else name


def stated_wrong(table: object, *names: str, needed: bool = False) -> str:
    """Say which length is stated twice, or not at all where it is needed; empty: none.

    Args:
        table: what holds ``name`` and ``name_epochs`` for each of the names.
        names: of the lengths.
        needed: whether each must be stated.
    """
    for name in names:
        stated = [key for key in (name, name + SUFFIX) if getattr(table, key) is not None]
        if len(stated) == 2:
            return (
                f"must hold {name} (a share of the training) or {name + SUFFIX} (epochs), found "
                "both: leave one of them out"
            )
        if needed and not stated:
            return (
                f"must hold {name}, a share of the training ({name} = 0.25), or {name + SUFFIX}, "
                "in epochs"
            )
    return ""


def with_epochs_named(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's document in which every length in epochs stands at a key that says so.

    Milestones and patience were epochs: numbers from 1 on are no shares, and mean them still.
    """
    train = document.get("train")
    if not isinstance(train, Mapping):
        return dict(document)
    tables = {table: _renamed(train[table], key) for table, key in NAMED_LATE if table in train}
    return {**document, "train": {**train, **tables}}


NAMED_LATE = (("schedule", "milestones"), ("stop", "patience"))
"""Tables of ``train``, and their keys that held epochs."""


def _renamed(table: Any, key: str) -> Any:
    stated = table.get(key) if isinstance(table, Mapping) else None
    numbers = stated if isinstance(stated, list) else [stated]
    in_epochs = [n for n in numbers if isinstance(n, int | float) and n is not True and n >= 1]
    if not in_epochs or key + SUFFIX in table:
        return table
    return {**{k: v for k, v in table.items() if k != key}, key + SUFFIX: stated}


def in_epochs(table: object, name: str, epochs: int) -> float:
    """Return a length in epochs, of a training of so many; 0 where it is not stated."""
    share, stated = getattr(table, name), getattr(table, name + SUFFIX)
    if stated is not None:
        return float(stated)
    return share_in_epochs(share or 0.0, epochs)


def share_in_epochs(share: float, epochs: int) -> float:
    """Return a share of so many epochs; a whole number where it is near one."""
    exact = share * epochs
    whole = round(exact)
    return float(whole) if abs(exact - whole) < NEAR else exact


def in_whole_epochs(table: object, name: str, epochs: int, least: int = 0) -> int:
    """Return a length in whole epochs, rounded down, but not below ``least``."""
    return max(least, math.floor(in_epochs(table, name, epochs)))
