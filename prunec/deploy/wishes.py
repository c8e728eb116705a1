"""Options of a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Wishes:
    """Requested bundle.

    Attributes:
        place: folder, or path that ends in ``.zip``; None for no bundle.
        release: release in place of the recipe's; empty for the recipe's.
        key: private key to sign with; None for no signature.
        bom: whether to include a bill of materials.
        layers: whether to include the values between layers.
        native: whether to include C code and a library built from it here.
    """

    place: Path | None = None
    release: str = ""
    key: Path | None = None
    bom: bool = False
    layers: bool = False
    native: bool = False
