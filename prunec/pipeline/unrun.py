"""Files that nothing here runs: whole, and those that were made; never called proven."""

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
    """Return what can be found of such a file.

    Args:
        writer: of its form; ``runs_on`` says what would run it.
        path: the file.
        entry: what the manifest says of it.
        recorded: the checks that what was recorded is what is read now.
        records: what was found of the run's records: checks, and what was not checked.
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
    untold = (not_run(writer), *records[1])
    return Report(tuple(checks), Details(str(path), writer.size(path), not_checked=untold))


def not_run(writer: Exporter) -> str:
    """Return that its outputs are not proven, and what would prove them."""
    return (
        f"outputs, accuracy and latency of {writer.form()}, which are not proven: not run here: "
        f"needs {writer.runs_on}"
    )
