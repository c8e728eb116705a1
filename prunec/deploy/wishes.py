"""What is asked of a bundle besides what every bundle holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Wishes:
    """A bundle that is asked for.

    Attributes:
        place: a folder, or a file that ends in ``.zip``; None: none is asked for.
        release: takes the place of the recipe's; empty: that one.
        key: a private key that signs it; None: nobody signs.
        bom: whether it holds a bill of materials.
        layers: whether it holds the values between the layers.
        native: whether it holds native code, and a library of it built here.
    """

    place: Path | None = None
    release: str = ""
    key: Path | None = None
    bom: bool = False
    layers: bool = False
    native: bool = False
