"""Artifacts of a run: load the last one that is sound, run a pass and save its result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prunec.artifact import Artifact
from prunec.contract import Pass
from prunec.errors import DamagedRecord
from prunec.pipeline.opened import OpenedRun
from prunec.processes import ALONE
from prunec.store.artifacts import save_artifact
from prunec.store.kept_records import keep_records
from prunec.store.runs import RunFolder
from prunec.training.context import Context


def resumed(
    opened: OpenedRun, last: int, note: Callable[[str], None]
) -> tuple[Artifact | None, int]:
    """Return the artifact after the last finished of the first ``last`` passes, and their number.

    A damaged artifact is reported through ``note``, and the one before it is taken.
    """
    done = 0
    while done < last and opened.is_done(done):
        done += 1
    # Backwards: a damaged artifact costs the passes after the last sound one, not the whole run.
    while done:
        try:
            return opened.artifact(done - 1), done
        except DamagedRecord as error:
            done -= 1
            name = opened.passes[done].pass_name()
            note(f"{error.message}; {name} is run again from the state before it")
    return None, 0


def run_pass(
    artifact: Artifact,
    step: Pass,
    index: int,
    run: RunFolder,
    context: Context | None,
    announce: Callable[[str], None],
    before: Path | None = None,
) -> Artifact:
    """Run a pass on an artifact; rank 0 saves the result in the run.

    Args:
        artifact: input of the pass.
        step: the pass.
        index: its place among the run's passes.
        run: the run.
        context: context of a training pass; None for a rewrite.
        announce: callback for the name of the pass.
        before: folder of the artifact before the pass, whose file of weights may be shared.
    """
    announce(step.pass_name())
    result = step(artifact, context)
    processes = context.processes if context else ALONE
    if processes.first:
        folder = run.step(index, step.pass_name())
        save_artifact(result, folder, run.identity, before)
        # A rewrite has no context and leaves the metrics of the training as they are.
        keep_records(run, folder / "artifact.json", *((run.metrics,) if context else ()))
    # The others may read the step as soon as they go on.
    processes.wait()
    return result
