"""Measures of quality: their keys in files, and their names on screens.

All are in percent, over the test or training images. The task determines which exist; epochs,
recipes and runs are compared by the first of `DECISIVE` that exists.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Quality:
    """A measure: key (``miou`` in reports, ``test_miou`` in metrics), and name in a sentence."""

    key: str
    name: str

    @property
    def title(self) -> str:
        """The name at the beginning of a line, capitalised."""
        return self.name if self.name[1:2].isupper() else self.name[:1].upper() + self.name[1:]


ACCURACY = Quality("accuracy", "accuracy")
"""Share of images whose predicted class is their label."""

MIOU = Quality("miou", "mIoU")
"""Mean over classes of the intersection over union of labelled and predicted pixels."""

PIXEL_ACCURACY = Quality("pixel_accuracy", "pixel accuracy")
"""Share of labelled pixels whose predicted class is their label."""

DECISIVE = (MIOU, ACCURACY)  # in order: segmentation's reports may have both


def decisive(keys: Container[str], prefix: str = "") -> Quality:
    """Return the decisive measure among those whose ``prefix`` + key is in ``keys``."""
    return next((quality for quality in DECISIVE if f"{prefix}{quality.key}" in keys), ACCURACY)


def measured(metrics: Mapping[str, object], split: str = "test") -> tuple[str, str, float]:
    """Return key, name and value of the decisive measure in an epoch's metrics."""
    quality = decisive(metrics, f"{split}_")
    key = f"{split}_{quality.key}"
    value = metrics[key]
    assert isinstance(value, int | float)
    return key, quality.name, float(value)
