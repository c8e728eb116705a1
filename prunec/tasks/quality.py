"""The figures that say how good a network is: their keys in files, their names for people.

All are in percent of the test (or training) images. What a data set asks for decides which there
are; the first of `DECISIVE` that is there is the one that epochs, recipes and runs are compared by.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Quality:
    """A figure: its key (``test_miou`` in metrics, ``miou`` in reports), its name in a sentence."""

    key: str
    name: str

    @property
    def title(self) -> str:
        """The name where a line begins."""
        return self.name if self.name[1:2].isupper() else self.name[:1].upper() + self.name[1:]


ACCURACY = Quality("accuracy", "accuracy")
"""Share of the images whose first answer is their label."""

MIOU = Quality("miou", "mIoU")
"""Mean over classes of intersection over union of the pixels labelled and answered so."""

PIXEL_ACCURACY = Quality("pixel_accuracy", "pixel accuracy")
"""Share of the labelled pixels whose first answer is their label."""

DECISIVE = (MIOU, ACCURACY)


def decisive(keys: Container[str], prefix: str = "") -> Quality:
    """Return the figure that decides among those whose ``prefix`` + key is in ``keys``."""
    return next((quality for quality in DECISIVE if f"{prefix}{quality.key}" in keys), ACCURACY)


def measured(metrics: Mapping[str, object], split: str = "test") -> tuple[str, str, float]:
    """Return the key, the name and the value of the figure that decides, of an epoch's metrics."""
    quality = decisive(metrics, f"{split}_")
    key = f"{split}_{quality.key}"
    value = metrics[key]
    assert isinstance(value, int | float)
    return key, quality.name, float(value)
