"""Miniature networks, each awkward in one way and named for it."""

from __future__ import annotations

from zoo import (
    channels,
    families,
    forwards,
    operators,
    recurrent,
    refusals,
    sequences,
    spatial,
    wiring,
)
from zoo.parts import ZOO, Case

__all__ = [
    "ZOO",
    "Case",
    "channels",
    "families",
    "forwards",
    "operators",
    "recurrent",
    "refusals",
    "sequences",
    "spatial",
    "wiring",
]
