"""The artifacts of a run, as its passes make them."""

from __future__ import annotations

from collections.abc import Callable

from prunec.artifact import Artifact
from prunec.contract import Pass
from prunec.pipeline.opened import OpenedRun
from prunec.processes import ALONE
from prunec.store.artifacts import save_artifact
from prunec.store.runs import RunFolder
from prunec.training.context import Context


def resumed(opened: OpenedRun, last: int) -> tuple[Artifact | None, int]:
    """Return the artifact after the last finished of the first ``last`` passes, and how many."""
    done = 0
    while done < last and opened.is_done(done):
        done += 1
    return (opened.artifact(done - 1), done) if done else (None, 0)


def run_pass(
    artifact: Artifact,
    step: Pass,
    index: int,
    run: RunFolder,
    context: Context | None,
    announce: Callable[[str], None],
) -> Artifact:
    """What a pass makes of an artifact, saved in the run by the first of the processes."""
    announce(step.pass_name())
    result = step(artifact, context)
    processes = context.processes if context else ALONE
    if processes.first:
        save_artifact(result, run.step(index, step.pass_name()))
    processes.wait()
    return result
