"""Checks of a file under further runners, besides the form's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from prunec.artifact import Artifact
from prunec.batches.batches import Data
from prunec.catalogue import other_runners, runner_for, runner_named
from prunec.deploy.checks import Check
from prunec.deploy.checks.reference import Reference
from prunec.deploy.exporter import Exporter
from prunec.deploy.gate import verify_elsewhere
from prunec.deploy.runner import Identity, Runner
from prunec.errors import RunError
from prunec.recipe import Recipe


def named_runners(names: Iterable[str], recipe: Recipe | None = None) -> tuple[Runner, ...]:
    """Return the runners that a command and a recipe name, each once.

    Raises:
        PrunecError: a runner does not exist or cannot be reached; raised before any computation.
    """
    wanted = dict.fromkeys([*names, *((recipe.verify.runners if recipe else None) or ())])
    runners = tuple(map(runner_named, wanted))
    for runner in runners:
        # Raises if the device cannot be reached, before minutes of export.
        _ = runner.identity
    return runners


def require_opening(runners: Iterable[Runner], exporters: Sequence[Exporter]) -> None:
    """Refuse a runner that opens none of the forms, before anything is written.

    Raises:
        RunError: there is one.
    """
    written = {writer.suffix for writer in exporters}
    for runner in runners:
        if written.isdisjoint(runner.suffixes):
            opened = ", ".join(sorted(runner.suffixes))
            raise RunError(
                f"--runner {runner.runner_name()} opens {opened} files, and the export writes "
                f"{', '.join(sorted(written))}",
                remedy="Add the flag of a form that it opens, or leave --runner out.",
            )


def check_elsewhere(
    writer: Exporter,
    path: Path,
    recipe: Recipe,
    artifact: Artifact,
    data: Data | None,
    named: Sequence[Runner] = (),
    reference: Reference | None = None,
) -> tuple[list[Check], list[str], list[Identity]]:
    """Check a file under the further runners here and the named ones.

    Args:
        writer: exporter of the file's form.
        path: the file.
        recipe: recipe with the tolerances.
        artifact: the artifact that ships.
        data: the test split; None where there is none.
        named: runners that were asked for by name.
        reference: the network's outputs, shared by all files of one network.

    Returns:
        The checks; phrases on what was not checked; the runners that checked something.
    """
    checks: list[Check] = []
    unchecked: list[str] = []
    identities: list[Identity] = []
    own, others = runner_for(writer.suffix), other_runners(writer.suffix)
    for runner in named:
        # Named by the command line, but run anyway.
        if runner in (own, *others):
            continue
        if writer.suffix in runner.suffixes:
            others = (*others, runner)
        else:
            name = runner.identity.name
            unchecked.append(
                f"{writer.form()} under {name}: it does not open {writer.suffix} files"
            )
    for runner in others:
        under, unopened = verify_elsewhere(
            path,
            artifact.module,
            artifact.example,
            exporter=writer,
            runner=runner,
            spec=recipe.verify,
            data=data,
            reference=reference,
        )
        checks, unchecked = [*checks, *under], [*unchecked, *unopened]
        identities += [runner.identity] if under else []
    return checks, unchecked, identities
