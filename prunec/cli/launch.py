"""Starts a training: one process, or the one of several that torchrun calls this one.

What can be seen to be wrong is said before the run's folder is made. Rank 0 finds or makes that
folder and speaks; the others are told which it is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prunec.cli.noise import keep_in
from prunec.cli.selection import resumed_run, trainable
from prunec.errors import Interrupted
from prunec.recipe import Recipe
from prunec.store.finding import launched_run
from prunec.store.new_runs import create_run
from prunec.store.runs import RunFolder, Status
from prunec.store.states import require_room
from prunec.wording import first_line

if TYPE_CHECKING:
    from rich.console import Console

    from prunec.artifact import Artifact
    from prunec.pipeline import Prepared
    from prunec.processes import Processes


@dataclass(frozen=True)
class Asked:
    """What is to be trained: a new run of a recipe, or one that goes on.

    Attributes:
        recipe: the recipe.
        source: its file, for errors.
        run: the run that goes on; None for a new one.
    """

    recipe: Recipe
    source: str
    run: RunFolder | None = None


def train(
    reference: str | None,
    changes: Sequence[str],
    *,
    device: str | None,
    resume: bool,
    root: Path,
) -> None:
    """Train a new run of a recipe, or go on with one; print what came of it.

    Args:
        reference: a recipe's file or packaged name; with ``resume`` also a run.
        changes: ``key=value`` each, for a new run.
        device: ``auto``, ``cpu``, ``cuda``; None for the recipe's.
        resume: whether a run goes on. One that torchrun starts again after a loss does so anyway.
        root: the folder of the runs.

    Raises:
        PrunecError: as its parts do.
        KeyboardInterrupt: as it came.
    """
    with _together() as processes:
        asked = _asked(reference, changes, resume, root, processes)
        first = processes is None or processes.first
        with asked.run.held() if asked.run and first else nullcontext():
            prepared, console = _prepared(asked, device, first)
            if asked.run:
                _finished(asked.run, prepared, console, first)
        if asked.run is None:
            made = create_run(asked.recipe, root) if first else None
            run = made if processes is None else processes.share(made)
            assert run is not None
            with run.held() if first else nullcontext():
                _finished(run, prepared, console, first)


def _together() -> AbstractContextManager[Processes | None]:
    """Join the other processes, if there are any; torch is not imported before."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return nullcontext(None)
    from prunec.processes import joined

    return joined()


def _asked(
    reference: str | None,
    changes: Sequence[str],
    resume: bool,
    root: Path,
    processes: Processes | None,
) -> Asked:
    """What is to be trained; rank 0 finds it."""
    found: Asked | None = None
    if processes is None or processes.first:
        run = launched_run(root) if int(os.environ.get(_RESTARTS, "0")) else None
        if resume and run is None:
            run = resumed_run(reference, changes, root)
        if run:
            found = Asked(run.recipe, str(run.path / "recipe.toml"), run)
        else:
            found = Asked(*trainable(reference, changes))
            require_room(root)
    found = found if processes is None else processes.share(found)
    assert found is not None
    return found


_RESTARTS = "TORCHELASTIC_RESTART_COUNT"  # how often torchrun has started these processes again


def _prepared(asked: Asked, device: str | None, first: bool) -> tuple[Prepared, Console]:
    """What trains, checked, and the console that is told of it."""
    from rich.console import Console

    from prunec import pipeline
    from prunec.training.progress import make_progress

    console = Console(quiet=not first)
    place, progress = device or asked.recipe.device, make_progress(console)
    if asked.run:
        return pipeline.prepare_again(asked.run, device=place, progress=progress), console
    made = pipeline.prepare(asked.recipe, asked.source, device=place, progress=progress)
    return made, console


def _finished(run: RunFolder, prepared: Prepared, console: Console, first: bool) -> None:
    """Train to the end, and tell what came of it."""
    artifact = _trained(run, prepared, console, first)
    if first:
        _tell(run, artifact)


def _trained(run: RunFolder, prepared: Prepared, console: Console, first: bool) -> Artifact:
    from prunec import pipeline
    from prunec.tables import show

    keep_in(run.path)
    show(console, f"Run: {run.path}")
    _mark(run, "training", first)
    try:
        artifact = pipeline.train(prepared, run)
    except (KeyboardInterrupt, Interrupted) as error:
        _mark(run, "interrupted", first)
        remedy = f"Continue with: prunec train --resume {run.path}"
        if isinstance(error, Interrupted):
            error.remedy = remedy
            raise
        raise Interrupted("stopped", 130, remedy=remedy) from error
    except Exception as error:
        _mark(run, "failed", first, first_line(error))
        raise
    _mark(run, "trained", first)
    return artifact


def _mark(run: RunFolder, status: Status, first: bool, failure: str = "") -> None:
    """Write down how far the run came, once."""
    if first:
        run.mark(status, failure)


def _tell(run: RunFolder, artifact: Artifact) -> None:
    from rich.console import Console

    from prunec.cli import listings
    from prunec.page import write_report
    from prunec.tables import show

    console = Console()
    console.print(listings.steps_table(run.name, artifact.history))
    show(console, f"Report: {write_report(run)}")
    show(console, f"Ship it with: prunec export --onnx {run.path}")
