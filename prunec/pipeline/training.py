"""Training: the passes of a recipe up to the last that trains."""

from __future__ import annotations

from prunec.artifact import Artifact
from prunec.pipeline.artifacts import run_pass
from prunec.pipeline.preparing import Prepared
from prunec.store.runs import RunFolder


def train(prepared: Prepared, run: RunFolder) -> Artifact:
    """Run a recipe's passes up to its last training pass.

    Args:
        prepared: what trains.
        run: where everything is written.

    Raises:
        PrunecError: as the passes do.
    """
    prepared = prepared.within(run)
    artifact, opened, context = prepared.artifact, prepared.opened, prepared.context
    for index in range(prepared.done, opened.trained):
        artifact = run_pass(
            artifact, opened.passes[index], index, run, context, context.progress.stage
        )
    return artifact
