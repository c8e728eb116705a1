"""Networks with the normalisation of uint8 images inside: network, dense network and data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from prunec.artifact import Artifact
from prunec.batches.batches import Data
from prunec.deploy.checks.reference import Reference
from prunec.errors import RunError
from prunec.graph.rewriting.alike import alike
from prunec.graph.rewriting.fold_batch_norms import fold_captured
from prunec.models.raw_images import LAYOUTS, AsBytes, RawImages, bytes_of
from prunec.pipeline.feeding import is_image, spread
from prunec.recipe import Recipe


@dataclass(frozen=True)
class Shipping:
    """Artifact to ship, and what it is compared with.

    Attributes:
        artifact: the artifact that ships.
        dense: the network before any cut.
        data: the images; None where there are none.
    """

    artifact: Artifact
    dense: Artifact
    data: Data | None

    @cached_property
    def reference(self) -> Reference:
        """Outputs of the network that ships, computed once for all forms and runners."""
        return Reference(self.artifact.module)

    @cached_property
    def folded_dense(self) -> Artifact:
        """The network before any cut, with folded batch norms, for the files that are timed."""
        # The graph that its cost was counted on: capturing takes longer than folding.
        folded, *_ = fold_captured(self.dense.captured())
        return Artifact(folded, self.dense.example)

    @cached_property
    def is_dense(self) -> bool:
        """Whether nothing was cut: the artifact is the dense network, apart from weights' values.

        A file of it is then its own dense twin.
        """
        return alike(self.artifact.module, self.folded_dense.module)


@dataclass(frozen=True)
class RawShipping(Shipping):
    """The same with the normalisation of uint8 images inside both networks.

    Attributes:
        plain: the same without the normalisation.
        raw: puts the normalisation around a network.
    """

    plain: Shipping
    raw: Callable[[nn.Module], nn.Module]

    @cached_property
    def folded_dense(self) -> Artifact:
        """The plain one, with the normalisation inside."""
        return Artifact(self.raw(self.plain.folded_dense.module), self.dense.example)

    @cached_property
    def is_dense(self) -> bool:
        """Whether nothing was cut of the plain one."""
        return self.plain.is_dense


def layout_of(entry: Mapping[str, Any]) -> str:
    """Return the layout of a recorded file's uint8 images; empty where it takes floats."""
    feeding = entry.get("feeding")
    inputs = feeding.get("inputs") if isinstance(feeding, Mapping) else None
    first = inputs[0] if isinstance(inputs, list) and inputs else {}
    said = str(first.get("layout", "")).lower()
    return said if first.get("type") == "uint8" and said in LAYOUTS else ""


def with_raw_images(layout: str, recipe: Recipe, shipping: Shipping) -> Shipping:
    """Return the same networks and data with uint8 inputs; unchanged for an empty layout.

    Raises:
        RunError: the recipe names no images, or they are not uint8 before normalisation.
    """
    data = shipping.data
    if not layout:
        return shipping
    require_raw_images(layout, recipe, data)
    assert data is not None
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
    fed = _as_bytes(layout, data)
    dense = Artifact(raw(shipping.dense.module), example)
    return RawShipping(artifact, dense, fed, shipping, raw)


def require_raw_images(layout: str, recipe: Recipe, data: Data | None) -> None:
    """Refuse data that are not images, or whose transforms convert them to floats.

    Args:
        layout: layout of the uint8 images; nothing is refused where it is empty.
        recipe: the recipe.
        data: its data; None where it names none.

    Raises:
        RunError: there are no images, or a transform converts them.
    """
    if not layout:
        return
    if data is None or not is_image(recipe):
        raise RunError(
            "--with-preprocessing needs images, and the recipe names none",
            remedy="Leave it out, or name the images: [data] name, mean, std.",
        )
    try:
        next(iter(_as_bytes(layout, data).test_batches(1)))
    except TypeError as error:
        raise RunError(
            f"--with-preprocessing: {error}",
            remedy="Leave ToDtype and its like out of data.prepare: the file converts the bytes.",
        ) from None


def _as_bytes(layout: str, data: Data) -> Data:
    """Return the data with uint8 images in place of normalised ones."""
    options: dict[str, Any] = {"normalise": AsBytes(layout)}
    if hasattr(data, "loaders"):
        options["loaders"] = {}
    return replace(data, **options)
