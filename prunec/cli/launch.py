"""Starts a training: one process, or the one of several that torchrun calls this one.

Rank 0 finds or makes the run's folder and speaks; the others are told which it is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from prunec.cli.selection import new_run, resumed_run
from prunec.errors import Interrupted
from prunec.store.finding import launched_run
from prunec.store.runs import RunFolder

if TYPE_CHECKING:
    from prunec.artifact import Artifact
    from prunec.processes import Processes


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
        run, resume = _run(reference, changes, resume, root, processes)
        with run.held() if processes is None or processes.first else nullcontext():
            artifact = _trained(run, device, resume, processes)
            if processes is None or processes.first:
                _tell(run, artifact)


def _together() -> AbstractContextManager[Processes | None]:
    """Join the other processes, if there are any; torch is not imported before."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return nullcontext(None)
    from prunec.processes import joined

    return joined()


def _run(
    reference: str | None,
    changes: Sequence[str],
    resume: bool,
    root: Path,
    processes: Processes | None,
) -> tuple[RunFolder, bool]:
    """The run, and whether it goes on."""
    found: tuple[RunFolder, bool] | None = None
    if processes is None or processes.first:
        launched = launched_run(root) if int(os.environ.get(_RESTARTS, "0")) else None
        choose = resumed_run if resume else new_run
        found = (launched, True) if launched else (choose(reference, changes, root), resume)
    found = found if processes is None else processes.share(found)
    assert found is not None
    return found


_RESTARTS = "TORCHELASTIC_RESTART_COUNT"  # how often torchrun has started these processes again


def _trained(
    run: RunFolder, device: str | None, resume: bool, processes: Processes | None
) -> Artifact:
    from rich.console import Console

    from prunec import pipeline
    from prunec.training.progress import make_progress

    first = processes is None or processes.first
    console = Console(quiet=not first)
    console.print(f"Run: {run.path}", soft_wrap=True, highlight=False)
    mark = run.mark if first else lambda _: None
    mark("training")
    try:
        artifact = pipeline.train(
            run.recipe,
            run,
            device=device or run.recipe.device,
            progress=make_progress(console),
            resume=resume,
        )
    except (KeyboardInterrupt, Interrupted) as error:
        mark("interrupted")
        remedy = f"Continue with: prunec train --resume {run.path}"
        if isinstance(error, Interrupted):
            error.remedy = remedy
            raise
        raise Interrupted("stopped", 130, remedy=remedy) from error
    except Exception:
        mark("failed")
        raise
    mark("trained")
    return artifact


def _tell(run: RunFolder, artifact: Artifact) -> None:
    from rich.console import Console

    from prunec.cli import listings
    from prunec.page import write_report

    console = Console()
    console.print(listings.steps_table(run.name, artifact.history))
    console.print(f"Report: {write_report(run)}", soft_wrap=True, highlight=False)
    console.print("Ship it with: prunec export --onnx", highlight=False)
