"""An opened recipe: passes, data and networks that it names, each built when first needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from prunec.artifact import Artifact
from prunec.batches.batches import Data
from prunec.batches.data import load_data
from prunec.catalogue import build_exporters, build_passes
from prunec.contract import Pass, Training
from prunec.deploy.exporter import Exporter
from prunec.deploy.servable import require_servable
from prunec.errors import DataError
from prunec.inspection.network import parse_input
from prunec.models.building import CLASSES, build_model, unweighted
from prunec.pipeline.named import (
    BY_NAME,
    random_example,
    require_inputs,
    usual_inputs,
)
from prunec.recipe import Recipe

OF_DATA = (
    "Let data.prepare and data.augment end at a size that it takes; fit the first convolution to "
    "the channels of the images with model.edit."
)


@dataclass(frozen=True)
class Untrained:
    """The network as a recipe builds it, and the recipe's images, if any."""

    artifact: Artifact
    images: Data | None


class OpenedRecipe:
    """A recipe's passes, data and networks.

    Args:
        read: function that reads the recipe.
        source: its file, for errors.
        data: its data, if already loaded; None to load them when first needed.
    """

    def __init__(self, read: Callable[[], Recipe], source: str, data: Data | None = None) -> None:
        self._read, self.source = read, source
        if data is not None:
            self.data = data

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self._read()

    @cached_property
    def passes(self) -> tuple[Pass, ...]:
        """Its passes, in order."""
        return build_passes(self.recipe, self.source)

    @cached_property
    def data(self) -> Data:
        """Its images, loaded.

        Raises:
            DataError: the recipe names none, or they cannot be loaded.
        """
        return load_data(self.recipe.data, seed=self.recipe.seed)

    @property
    def images(self) -> Data | None:
        """Its images, or None where the recipe names none."""
        return None if self.recipe.data.name == "none" else self.data

    @property
    def classes(self) -> int:
        """Number of classes: that of the data, else the recipe's, else 1000.

        Raises:
            DataError: the recipe states another number than the data have.
        """
        stated, images = self.recipe.model.classes, self.images
        if images is None:
            return stated or CLASSES
        if stated not in (0, images.classes):
            raise DataError(
                f"model.classes = {stated}, but the data have {images.classes}",
                remedy="Name the data that the network was trained on.",
            )
        return images.classes

    @property
    def trained(self) -> int:
        """Number of passes up to and including the last training pass."""
        return max((i + 1 for i, p in enumerate(self.passes) if isinstance(p, Training)), default=0)

    def exporters(
        self, forms: Sequence[str] = (), options: Mapping[str, Mapping[str, Any]] | None = None
    ) -> tuple[Exporter, ...]:
        """Return its exporters and those of further forms; ``options`` override the recipe's."""
        return build_exporters(self.recipe, self.source, forms, options)

    def require_servable(
        self,
        exporters: Sequence[Exporter],
        network: tuple[nn.Module, tuple[Tensor, ...]] | None = None,
        layout: str = "",
    ) -> None:
        """Refuse what an exporter cannot serve: see :func:`require_servable`."""
        facts: frozenset[str] = frozenset()
        for step in self.passes:
            facts = step.facts_after(facts)
        images = self.recipe.data.name != "none"
        require_servable(exporters, facts=facts, images=images, layout=layout, network=network)

    def fresh(self, note: Callable[[str], None] = lambda _: None) -> Artifact:
        """Return the network as the recipe builds it, with an example of two samples.

        The example is two test images (one twice, if there is no other), or random where the recipe
        names no data. ``note`` receives sentences on the weights.

        Raises:
            DataError: the network does not take the inputs that the recipe names.
        """
        recipe = self.recipe
        module = build_model(recipe.model, self.classes, seed=recipe.seed, note=note).eval()
        if self.images is None:
            inputs = tuple(map(parse_input, recipe.model.inputs)) or usual_inputs(module)
            example = random_example(inputs, recipe.seed)
        else:
            images, _ = next(iter(self.images.test_batches(2)))
            example = (torch.cat([images, images])[:2],)  # twice: the set may have a single image
        remedy = BY_NAME if self.images is None else OF_DATA
        require_inputs(f"{self.source}: {recipe.model.name}", module, example, remedy)
        return Artifact(module, example)

    @cached_property
    def dense(self) -> nn.Module:
        """The recipe's network as its constructor builds it, with random weights, in eval mode."""
        return self._network().eval()

    def _network(self) -> nn.Module:
        spec = unweighted(self.recipe.model)
        return build_model(spec, self.classes, seed=self.recipe.seed)
