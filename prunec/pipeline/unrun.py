"""Checks of files that no runner here can run: intact and unchanged, but not proven."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from prunec.deploy.checks import Check, Details, Report
from prunec.deploy.checks.check import failed
from prunec.deploy.checks.identity import unchanged
from prunec.deploy.exporter import Exporter
from prunec.errors import PrunecError
from prunec.pipeline.manifest import UNRECORDED


def unrun(
    writer: Exporter,
    path: Path,
    entry: Mapping[str, object],
    recorded: Sequence[Check],
    records: tuple[Sequence[Check], Sequence[str]],
) -> Report:
    """Check a file as far as possible without running it.

    Args:
        writer: exporter of its form; ``runs_on`` names what would run it.
        path: the file.
        entry: the manifest's entry of the file.
        recorded: checks of the records of training and export.
        records: checks of the run's records, and phrases on what was not checked of them.
    """
    name, valid = "readable", f"a valid {writer.form()} file"
    try:
        written = writer.read_back(path)
    except PrunecError as error:
        return Report((failed(name, valid, "none", f"{error.message}."),), Details(str(path)))
    checks = [
        Check(name, valid, valid, None, True),
        *unchanged(written, path, {**UNRECORDED, **entry}),
        *recorded,
        *records[0],
    ]
    unchecked = (not_run(writer), *records[1])
    return Report(tuple(checks), Details(str(path), writer.size(path), not_checked=unchecked))


def not_run(writer: Exporter) -> str:
    """Return the phrase that a form's outputs are not proven, with what would run them."""
    return (
        f"outputs, accuracy and latency of {writer.form()}, unproven: not run here: needs "
        f"{writer.runs_on}"
    )
