"""What ships, as it takes images of bytes: the network, its dense twin and its data alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from prunec.artifact import Artifact
from prunec.batches.batches import Data
from prunec.errors import RunError
from prunec.models.raw_images import LAYOUTS, AsBytes, RawImages, bytes_of
from prunec.pipeline.feeding import is_image, spread
from prunec.recipe import Recipe


@dataclass(frozen=True)
class Shipping:
    """What ships and what it is compared with.

    Attributes:
        artifact: what ships.
        dense: the network before anything was cut.
        data: the images; None where there are none.
    """

    artifact: Artifact
    dense: Artifact
    data: Data | None


def layout_of(entry: Mapping[str, Any]) -> str:
    """Return the layout of bytes that a recorded file takes; empty where it takes numbers."""
    feeding = entry.get("feeding")
    inputs = feeding.get("inputs") if isinstance(feeding, Mapping) else None
    first = inputs[0] if isinstance(inputs, list) and inputs else {}
    said = str(first.get("layout", "")).lower()
    return said if first.get("type") == "uint8" and said in LAYOUTS else ""


def with_raw_images(layout: str, recipe: Recipe, shipping: Shipping) -> Shipping:
    """Return the same, taking uint8 images; as it is where no layout is named.

    Raises:
        RunError: the recipe has no images that could be bytes.
    """
    data = shipping.data
    if not layout:
        return shipping
    if data is None or not is_image(recipe) or len(shipping.artifact.example) != 1:
        raise RunError(
            "--with-preprocessing puts the normalisation of images into the file, and the recipe "
            "names no images",
            remedy="Leave it out, or name the images: [data] name, mean, std.",
        )
    channels = data.shape[0]
    mean, std = (spread(values, channels) for values in (recipe.data.mean, recipe.data.std))

    def raw(module: nn.Module) -> nn.Module:
        return RawImages(module, mean, std, layout)

    example: tuple[Tensor, ...] = (bytes_of(shipping.artifact.example[0], mean, std, layout),)
    artifact = replace(
        shipping.artifact,
        module=raw(shipping.artifact.module),
        example=example,
        masks={f"network.{name}": mask for name, mask in shipping.artifact.masks.items()},
    )
    options: dict[str, Any] = {"normalise": AsBytes(layout)}
    if hasattr(data, "loaders"):
        options["loaders"] = {}
    fed = replace(data, **options)
    _require_bytes(fed)
    return Shipping(artifact, Artifact(raw(shipping.dense.module), example), fed)


def _require_bytes(data: Data) -> None:
    """Refuse images whose transforms make numbers of them, before anything is written.

    Raises:
        RunError: they do.
    """
    try:
        next(iter(data.test_batches(1)))
    except TypeError as error:
        raise RunError(
            f"--with-preprocessing: {error}",
            remedy="Leave ToDtype and its like out of data.prepare: bytes become numbers last.",
        ) from None
