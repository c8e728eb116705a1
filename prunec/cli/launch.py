"""Start of a training: in a single process, or in this one of several under torchrun.

Mistakes that are visible beforehand are reported before the run's folder is created. Rank 0 finds
or creates that folder, prints, and shares the folder with the other ranks.
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
from prunec.training.stopwatch import Stopwatch
from prunec.wording import first_line

if TYPE_CHECKING:
    from rich.console import Console

    from prunec.artifact import Artifact
    from prunec.pipeline import Prepared
    from prunec.processes import Processes


@dataclass(frozen=True)
class Request:
    """A training to start: a new run of a recipe, or a run to continue.

    Attributes:
        recipe: the recipe.
        source: file of the recipe, for errors.
        run: the run to continue; None for a new one.
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
    retune: bool = False,
    verbose: bool = False,
) -> None:
    """Train a new run of a recipe, or continue a run; print the result.

    Args:
        reference: a recipe's file or packaged name; with ``resume`` also a run.
        changes: overrides ``key=value`` for a new run.
        device: ``auto``, ``cpu``, ``cuda``; None for the recipe's.
        resume: whether to continue a run. A run that torchrun restarts is continued in any case.
        root: the folder of the runs.
        retune: whether settings are measured although they are remembered.
        verbose: whether the time to the first step is printed, in parts.

    Raises:
        PrunecError: the recipe, the run or the training failed.
        Interrupted: a signal stopped the training.
    """
    watch = Stopwatch()
    with _joined() as processes:
        request = _request(reference, changes, resume, root, processes)
        first = processes is None or processes.first
        watch.mark("recipe")
        # A run to continue is locked before it is prepared, so that no second process continues
        # it too.
        with request.run.held() if request.run and first else nullcontext():
            prepared, console = _prepared(request, device, first, watch)
            prepared = prepared.measuring(retune=retune, watch=watch)
            if verbose:
                watch.note = prepared.context.progress.note
            if request.run:
                _train_and_report(request.run, prepared, console, first)
        if request.run is None:
            # Only after everything was prepared: a refused recipe leaves no folder.
            created = create_run(request.recipe, root) if first else None
            run = created if processes is None else processes.share(created)
            assert run is not None
            with run.held() if first else nullcontext():
                _train_and_report(run, prepared, console, first)


def _joined() -> AbstractContextManager[Processes | None]:
    """Join the other processes, if there are any; torch is imported only then."""
    # torchrun sets it for every process that it starts.
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return nullcontext(None)
    from prunec.processes import joined

    return joined()


def _request(
    reference: str | None,
    changes: Sequence[str],
    resume: bool,
    root: Path,
    processes: Processes | None,
) -> Request:
    """Return the training to start, on every rank; rank 0 determines it and shares it."""
    request: Request | None = None
    if processes is None or processes.first:
        # After a restart by torchrun the same command line must continue the run, not begin
        # another.
        run = launched_run(root) if int(os.environ.get(_RESTARTS, "0")) else None
        if resume and run is None:
            run = resumed_run(reference, changes, root)
        if run:
            request = Request(run.recipe, str(run.path / "recipe.toml"), run)
        else:
            request = Request(*trainable(reference, changes))
            require_room(root)
    request = request if processes is None else processes.share(request)
    assert request is not None
    return request


_RESTARTS = "TORCHELASTIC_RESTART_COUNT"  # set by torchrun: restarts of its processes so far


def _prepared(
    request: Request, device: str | None, first: bool, watch: Stopwatch
) -> tuple[Prepared, Console]:
    """Return the checked training and the console of its progress, silent except on rank 0."""
    from rich.console import Console

    from prunec import pipeline
    from prunec.training.progress import make_progress

    watch.mark("imports")
    console = Console(quiet=not first)
    place, progress = device or request.recipe.device, make_progress(console)
    if request.run:
        prepared = pipeline.prepare_again(request.run, device=place, progress=progress)
    else:
        prepared = pipeline.prepare(request.recipe, request.source, device=place, progress=progress)
    watch.mark("data, network, checks")
    return prepared, console


def _train_and_report(run: RunFolder, prepared: Prepared, console: Console, first: bool) -> None:
    """Train to the end; rank 0 prints the result."""
    artifact = _trained(run, prepared, console, first)
    if first:
        _print_result(run, artifact)


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
        # 130 = 128 + SIGINT, as shells count
        raise Interrupted("stopped", 130, remedy=remedy) from error
    except Exception as error:
        _mark(run, "failed", first, first_line(error))
        raise
    _mark(run, "trained", first)
    return artifact


def _mark(run: RunFolder, status: Status, first: bool, failure: str = "") -> None:
    """Record the state of the run, on rank 0 only."""
    if first:
        run.mark(status, failure)


def _print_result(run: RunFolder, artifact: Artifact) -> None:
    from rich.console import Console

    from prunec.cli import listings
    from prunec.page import write_report
    from prunec.tables import show

    console = Console()
    console.print(listings.steps_table(run.name, artifact.history))
    show(console, f"Report: {write_report(run)}")
    show(console, f"Ship it with: prunec export --onnx {run.path}")
