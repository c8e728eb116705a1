"""What the other runners here, besides the form's own, make of a file."""

from __future__ import annotations

from pathlib import Path

from prunec.artifact import Artifact
from prunec.batches.batches import Data
from prunec.catalogue import other_runners
from prunec.deploy.checks import Check
from prunec.deploy.exporter import Exporter
from prunec.deploy.gate import verify_elsewhere
from prunec.deploy.runner import Identity
from prunec.recipe import Recipe


def found_elsewhere(
    writer: Exporter, path: Path, recipe: Recipe, artifact: Artifact, data: Data | None
) -> tuple[list[Check], list[str], list[Identity]]:
    """Return the checks under every other runner, what was not checked, and what they are.

    Args:
        writer: of the file's form.
        path: the file.
        recipe: says what is allowed.
        artifact: what ships.
        data: the test split; None where there is none.
    """
    checks: list[Check] = []
    untold: list[str] = []
    identities: list[Identity] = []
    for runner in other_runners(writer.suffix):
        found, unopened = verify_elsewhere(
            path,
            artifact.module,
            artifact.example,
            exporter=writer,
            runner=runner,
            spec=recipe.verify,
            data=data,
        )
        checks, untold = [*checks, *found], [*untold, *unopened]
        identities += [runner.identity] if found else []
    return checks, untold, identities
