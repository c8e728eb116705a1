"""Broadcasting of shapes."""

from __future__ import annotations

import numpy as np


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that these shapes broadcast to."""
    return tuple(int(size) for size in np.broadcast_shapes(*shapes))
