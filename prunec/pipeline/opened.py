"""An opened run: everything that its recipe names, and the artifacts that its passes left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from prunec.artifact import Artifact
from prunec.batches.batches import Data
from prunec.contract import Pass
from prunec.errors import DamagedRecord
from prunec.pipeline.opened_recipe import OpenedRecipe
from prunec.store.artifacts import damage, load_artifact
from prunec.store.runs import RunFolder


class OpenedRun(OpenedRecipe):
    """A run's recipe, passes, data and artifacts.

    Args:
        run: the run.
        data: its data, if already loaded; None to load them when first needed.
    """

    def __init__(self, run: RunFolder, data: Data | None = None) -> None:
        super().__init__(lambda: run.recipe, str(run.path / "recipe.toml"), data)
        self.run = run

    @property
    def done(self) -> tuple[int, ...]:
        """Indices of the passes that have left their artifact."""
        return tuple(i for i in range(len(self.passes)) if self.is_done(i))

    def is_done(self, index: int) -> bool:
        """Return whether a pass left its artifact; true also if it is missing now: damage."""
        path = self._step(index) / "artifact.json"
        return path.is_file() or self.run.key(path) in self.run.kept

    def artifact(self, index: int) -> Artifact:
        """Return the artifact after a pass.

        Pretrained weights that the recipe names are not loaded: the artifact's replace them.

        Raises:
            DamagedRecord: it was changed, or made by other passes than the recipe's.
            RunError: it is missing, or of another network.
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
        """Sentences on missing or changed artifacts of the training passes."""
        folders = [self._step(index) for index in range(self.trained)]
        return tuple(text for f in folders if (text := damage(f, *self._known(f))))

    def _step(self, index: int) -> Path:
        return self.run.step(index, self.passes[index].pass_name())

    def _known(self, folder: Path) -> tuple[str, str]:
        """Return the run identity and the digest that the artifact in a folder must have."""
        return self.run.identity, self.run.kept.get(self.run.key(folder / "artifact.json"), "")

    def _again(self, index: int) -> str:
        """Return the remedy that makes the artifact after a pass anew."""
        if index < self.trained:
            return f"Continue from the last sound state: prunec train --resume {self.run.path}"
        return f"Make it again from the trained network: prunec export {self.run.path}"


def _made_by(artifact: Artifact, passes: Sequence[Pass]) -> bool:
    """Return whether an artifact was made by these passes, with these options.

    Options that its step does not record, because an older version wrote it, are ignored.
    """
    if [step.name for step in artifact.history] != [step.pass_name() for step in passes]:
        return False
    for step, stated in zip(artifact.history, passes, strict=True):
        # As the record was written: tuples as lists.
        options = json.loads(json.dumps(asdict(stated)))
        # An option that a later build added has no record, and one that it dropped no value now.
        if any(options.get(key, value) != value for key, value in step.options.items()):
            return False
    return True
