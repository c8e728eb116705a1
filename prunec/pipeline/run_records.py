"""Check of a run's records against the digests that it keeps of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prunec.deploy.checks import Check
from prunec.deploy.checks.records import compare_run_records
from prunec.pipeline.opened import OpenedRun
from prunec.store.kept_records import beginning_flaw, flaws_of
from prunec.store.runs import ENVIRONMENT, RunFolder


def check_records(
    run: RunFolder, steps: Iterable[Path] = (), anew: Iterable[Path] = ()
) -> tuple[list[Check], list[str]]:
    """Compare every record of a run with the digest that run.json keeps of it.

    Args:
        run: the run.
        steps: folders of the artifacts that must exist.
        anew: records to skip, because the caller rewrites them.

    Returns:
        The check; or, for a run of an earlier build that kept no digests, a phrase that says so.
    """
    if not run.identity:
        return [], [f"records of the run: {run.made_by} started it, and kept no digests of them"]
    if not run.kept:
        wrong = f"run.json keeps no digests: {run.made_by} started the run, or it was changed"
        return [compare_run_records(0, [wrong])], []
    paths = [path for path in _paths(run, steps) if path not in {*anew}]
    flaws = [text for text in (beginning_flaw(run), *flaws_of(run, paths)) if text]
    return [compare_run_records(len(paths), flaws)], []


def steps_of(opened: OpenedRun) -> list[Path]:
    """Return the folders of the artifacts that all passes of a run leave."""
    return [opened.run.step(i, step.pass_name()) for i, step in enumerate(opened.passes)]


def _paths(run: RunFolder, steps: Iterable[Path]) -> list[Path]:
    """Return the records that must exist, that the run keeps a digest of, or that exist.

    The report of ``prunec verify`` is left out, because it is about to be rewritten.
    """
    wanted = {run.path / ENVIRONMENT, *(step / "artifact.json" for step in steps)}
    there = {path for path in (run.settings, run.metrics) if path.is_file()}
    kept = {run.path / name for name in run.kept} - {run.export.verified}
    return sorted(wanted | there | kept)
