"""Training: the passes of a recipe up to its last training pass."""

from __future__ import annotations

from prunec.artifact import Artifact
from prunec.pipeline.artifacts import run_pass
from prunec.pipeline.preparing import Prepared
from prunec.store.runs import RunFolder


def train(prepared: Prepared, run: RunFolder) -> Artifact:
    """Run a recipe's passes up to its last training pass.

    Args:
        prepared: the prepared training.
        run: the run to write to.

    Raises:
        PrunecError: a pass failed.
    """
    prepared = prepared.within(run)
    artifact, opened, context = prepared.artifact, prepared.opened, prepared.context
    for index in range(prepared.done, opened.trained):
        artifact = run_pass(
            artifact, opened.passes[index], index, run, context, context.progress.stage
        )
    return artifact
