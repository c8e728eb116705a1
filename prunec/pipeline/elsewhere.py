"""What the other runners here, besides the form's own, make of a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from prunec.artifact import Artifact
from prunec.batches.batches import Data
from prunec.catalogue import other_runners, runner_for, runner_named
from prunec.deploy.checks import Check
from prunec.deploy.exporter import Exporter
from prunec.deploy.gate import verify_elsewhere
from prunec.deploy.runner import Identity, Runner
from prunec.recipe import Recipe


def named_runners(names: Iterable[str], recipe: Recipe | None = None) -> tuple[Runner, ...]:
    """Return the runners that a command and a recipe name, each once.

    Raises:
        PrunecError: one is not there: before anything is worked out.
    """
    wanted = dict.fromkeys([*names, *((recipe.verify.runners if recipe else None) or ())])
    found = tuple(map(runner_named, wanted))
    for runner in found:
        _ = runner.identity
    return found


def found_elsewhere(
    writer: Exporter,
    path: Path,
    recipe: Recipe,
    artifact: Artifact,
    data: Data | None,
    named: Sequence[Runner] = (),
) -> tuple[list[Check], list[str], list[Identity]]:
    """Return the checks under the other runners, what was not checked, and what they are.

    Args:
        writer: of the file's form.
        path: the file.
        recipe: says what is allowed.
        artifact: what ships.
        data: the test split; None where there is none.
        named: runners that were asked for by name.
    """
    checks: list[Check] = []
    untold: list[str] = []
    identities: list[Identity] = []
    own, others = runner_for(writer.suffix), other_runners(writer.suffix)
    for runner in named:
        if runner in (own, *others):
            continue
        if writer.suffix in runner.suffixes:
            others = (*others, runner)
        else:
            name = runner.identity.name
            untold.append(f"{writer.form()} under {name}: it opens no {writer.suffix} files")
    for runner in others:
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
