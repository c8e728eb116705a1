"""Images that pretrained weights expect: mean, deviation, size.

A recipe with such weights takes over these values where its data section leaves them out.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from prunec.recipe import Recipe
from prunec.recipe.network_and_data import ModelSpec


@dataclass(frozen=True)
class OwnImages:
    """Preparation of images that a network's weights expect.

    Attributes:
        resize: length of the shorter side before the crop, in pixels.
        crop: (H, W) of the network's input; empty where it takes any size.
        mean: mean per channel, after scaling to 0…1.
        std: standard deviation per channel, likewise.
    """

    resize: int
    crop: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def own_images(spec: ModelSpec) -> OwnImages | None:
    """Return the preparation that the weights of a recipe expect; None where it is unknown.

    torchvision's is looked up by the name in its enum, or by the file's name if it is torchvision's
    own; timm's by the network's name, for any file.
    """
    if not spec.weights:
        return None
    kind, _, name = spec.name.partition(":")
    if kind == "timm":
        return _of_timm(name)
    return None if name else _of_torchvision(spec.name, spec.weights)


def with_own_images(recipe: Recipe) -> Recipe:
    """Return the recipe with the preparation that its weights expect, where it states none.

    Mean and std are filled in if neither is stated; the size, as ``prepare``, if neither
    ``prepare`` nor ``augment`` is.
    """
    stated = recipe.data.model_fields_set
    takes_norm, takes_size = not {"mean", "std"} & stated, not {"prepare", "augment"} & stated
    if recipe.data.name == "none" or not (takes_norm or takes_size):
        return recipe
    own = own_images(recipe.model)
    if own is None:
        return recipe
    update: dict[str, Any] = {"mean": own.mean, "std": own.std} if takes_norm else {}
    if takes_size and own.crop:
        update["prepare"] = (
            {"name": "Resize", "size": own.resize},
            {"name": "CenterCrop", "size": list(own.crop)},
        )
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=update)})


def _of_torchvision(model: str, weights: str) -> OwnImages | None:
    import torchvision

    try:
        known = torchvision.models.get_model_weights(model).__members__
    except ValueError:
        return None
    file = PurePath(weights).name
    entries = [e for n, e in known.items() if n == weights or PurePath(e.url).name == file]
    if not entries:
        return None
    preset: Any = entries[0].transforms()
    size = _first(preset.resize_size)
    crop = getattr(preset, "crop_size", None)
    sides = () if crop is None else (_first(crop),) * 2
    return OwnImages(size, sides, tuple(preset.mean), tuple(preset.std))


def _of_timm(name: str) -> OwnImages | None:
    try:
        known = importlib.import_module("timm.models").get_pretrained_cfg(name)
    except ImportError:
        return None
    if known is None:
        return None
    crop = tuple(known.input_size[1:])
    return OwnImages(round(min(crop) / known.crop_pct), crop, known.mean, known.std)


def _first(size: int | Sequence[int]) -> int:
    return size if isinstance(size, int) else size[0]
