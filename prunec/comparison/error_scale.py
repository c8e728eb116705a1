"""The scale of accuracies: log error, so that 99 and 90 % are as far apart as 90 and 0 %.

No error is taken for less than 0.01 %.
"""

from __future__ import annotations

import math

LARGEST_ERROR, SMALLEST_ERROR = 100.0, 0.01


def error_place(accuracy: float) -> float:
    """Return where an accuracy in percent lies: −log₁₀ of the error."""
    return -math.log10(min(max(100 - accuracy, SMALLEST_ERROR), LARGEST_ERROR))


def accuracy_at(place: float) -> float:
    """Return the accuracy that lies at a place."""
    return 100 - min(10**-place, LARGEST_ERROR)
