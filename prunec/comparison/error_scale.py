"""Scale of accuracies: the logarithm of the error; 99 and 90 % are as far apart as 90 and 0 %.

Errors below 0.01 % are drawn as 0.01 %.
"""

from __future__ import annotations

import math

# percent: one image of 10,000, beyond which an accuracy is not resolved
LARGEST_ERROR, SMALLEST_ERROR = 100.0, 0.01


def error_place(accuracy: float) -> float:
    """Return the position of an accuracy in percent: −log₁₀ of the error in percent."""
    return -math.log10(min(max(100 - accuracy, SMALLEST_ERROR), LARGEST_ERROR))


def accuracy_at(place: float) -> float:
    """Return the accuracy in percent at a position."""
    return 100 - min(10**-place, LARGEST_ERROR)
