"""An opened run: what its recipe names, each made when it is first asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunec.artifact import Artifact
from prunec.batches.batches import Data
from prunec.batches.data import load_data
from prunec.catalogue import build_exporters, build_passes
from prunec.contract import Pass, Training
from prunec.deploy.exporter import Exporter
from prunec.errors import DamagedRecord, DataError
from prunec.inspection.network import parse_input
from prunec.models.building import build_model, unweighted
from prunec.pipeline.named import CLASSES, random_example, require_inputs, usual_inputs
from prunec.recipe import Recipe
from prunec.store.artifacts import damage, load_artifact
from prunec.store.runs import RunFolder


class OpenedRun:
    """A run's recipe, passes, data and artifacts.

    Args:
        run: the run.
        data: its data, where they are at hand or another's take their place.
    """

    def __init__(self, run: RunFolder, data: Data | None = None) -> None:
        self.run = run
        if data is not None:
            self.data = data

    @property
    def source(self) -> str:
        """The recipe's file, for errors."""
        return str(self.run.path / "recipe.toml")

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe as it ran."""
        return self.run.recipe

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
        """Number of classes: the recipe's, the data's, or that of a network by name.

        Raises:
            DataError: the recipe's is not the data's.
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
        """Number of passes up to and with the last that trains."""
        return max((i + 1 for i, p in enumerate(self.passes) if isinstance(p, Training)), default=0)

    @property
    def done(self) -> tuple[int, ...]:
        """Which passes have left their artifact."""
        return tuple(i for i in range(len(self.passes)) if self.is_done(i))

    def is_done(self, index: int) -> bool:
        """Say whether a pass has left its artifact."""
        return (self._step(index) / "artifact.json").is_file()

    def exporters(
        self, forms: Sequence[str] = (), options: Mapping[str, Mapping[str, Any]] | None = None
    ) -> tuple[Exporter, ...]:
        """Return its exporters, and those of further forms; options replace the recipe's."""
        return build_exporters(self.recipe, self.source, forms, options)

    def artifact(self, index: int) -> Artifact:
        """Return the artifact after a pass; weights that the recipe names are not loaded.

        They would be replaced at once.

        Raises:
            DamagedRecord: it is not what was written, or not what these passes make.
            RunError: it is not there, or of another network.
        """
        folder = self._step(index)
        try:
            artifact = load_artifact(folder, self._network, *self._known(folder))
        except DamagedRecord as error:
            error.remedy = self._again(index)
            raise
        if not _made_by(artifact, self.passes[: index + 1]):
            raise DamagedRecord(
                f"{folder} was made by other passes than {self.source} names",
                remedy=self._again(index),
            )
        return artifact

    @property
    def damaged(self) -> tuple[str, ...]:
        """What is missing, or is not as it was written, of what the training passes left."""
        folders = [self._step(index) for index in range(self.trained)]
        return tuple(text for f in folders if (text := damage(f, *self._known(f))))

    def _step(self, index: int) -> Path:
        return self.run.step(index, self.passes[index].pass_name())

    def _known(self, folder: Path) -> tuple[str, str]:
        """What the artifact in a folder must say of itself: its run, and its digest."""
        return self.run.identity, self.run.kept.get(self.run.key(folder / "artifact.json"), "")

    def _again(self, index: int) -> str:
        """How the artifact after a pass is made anew."""
        if index < self.trained:
            return f"Train on from the last sound state: prunec train --resume {self.run.path}"
        return f"Make it again from what was trained: prunec export {self.run.path}"

    def fresh(self) -> Artifact:
        """Return the network as the recipe builds it, and two samples as its example.

        They are test images (one twice, where there is no other), or random where the recipe names
        no data.

        Raises:
            DataError: the network does not take the inputs that the recipe names.
        """
        recipe = self.recipe
        module = build_model(recipe.model, self.classes, seed=recipe.seed).eval()
        if self.images is None:
            inputs = tuple(map(parse_input, recipe.model.inputs)) or usual_inputs(module)
            example = random_example(inputs, recipe.seed)
        else:
            images, _ = next(iter(self.images.test_batches(2)))
            example = (torch.cat([images, images])[:2],)  # a set of one image has it twice
        require_inputs(recipe.model.name, module, example)
        return Artifact(module, example)

    @cached_property
    def dense(self) -> nn.Module:
        """The recipe's network as its constructor makes it."""
        return self._network().eval()

    def _network(self) -> nn.Module:
        spec = unweighted(self.recipe.model)
        return build_model(spec, self.classes, seed=self.recipe.seed)


def _made_by(artifact: Artifact, passes: Sequence[Pass]) -> bool:
    """Whether the steps of an artifact are these passes; an option that one lacks is no other."""
    if [step.name for step in artifact.history] != [step.pass_name() for step in passes]:
        return False
    for step, stated in zip(artifact.history, passes, strict=True):
        options = json.loads(json.dumps(asdict(stated)))
        if any(options.get(key, value) != value for key, value in step.options.items()):
            return False
    return True
