"""Verification of a run folder from an untrusted source, without running its code.

A recipe names code: the factory of its network. That code is not imported, no network is built and
no data are read; file, manifest, golden values and counts must fit together. This proves that the
file is the one that was made, as far as the manifest can be trusted, but not that it does what its
maker claims.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from prunec.catalogue import build_exporters, runner_for
from prunec.cost import Cost
from prunec.deploy.checks import Check, Details, ExportReport, Report
from prunec.deploy.checks.check import equal, failed
from prunec.deploy.checks.identity import unchanged
from prunec.deploy.exporter import Exporter
from prunec.deploy.golden import check_golden
from prunec.deploy.signature import RECIPE_DIGEST
from prunec.deploy.written import Written
from prunec.errors import DamagedRecord, PrunecError, RunError
from prunec.pipeline.run_records import check_records
from prunec.recipe import digest
from prunec.store.exports import ExportFolder
from prunec.store.runs import RunFolder

NOT_CHECKED = (
    "the network itself, its outputs on random inputs and on test images, accuracy and budgets: "
    "--no-code builds no network"
)


_ASK = (
    "Ask for the whole folder, export/manifest.json included; its maker exports it: prunec export"
)


def verify_received(run: RunFolder) -> ExportReport:
    """Check every form that a folder records against the folder's records; write nothing.

    Raises:
        RunError: its manifest records no file.
        RecipeError: its recipe is not valid.
    """
    recipe_digest = digest(run.recipe)
    return ExportReport(
        {
            writer.form(): _checked(run, writer, recipe_digest, recorded)
            for writer, recorded in _recorded(run)
        }
    )


def inspect_received(run: RunFolder) -> dict[str, Cost]:
    """Count every recorded form over its file; return form → cost.

    Raises:
        RunError: its manifest records no file.
        PrunecError: a file cannot be read or counted.
    """
    costs = {}
    for writer, _ in _recorded(run):
        written = writer.read_back(_shipped(run, writer))
        if written.cost is None:
            raise RunError(f"{_shipped(run, writer)} cannot be counted: {written.uncounted}")
        costs[writer.form()] = written.cost
    return costs


def costs_json(costs: Mapping[str, Cost]) -> str:
    """Return the costs of forms as JSON."""
    return json.dumps({"forms": {form: asdict(cost) for form, cost in costs.items()}}, indent=2)


def _recorded(run: RunFolder) -> list[tuple[Exporter, dict[str, object]]]:
    """Return the exporter of every recorded form, with the manifest's entry."""
    try:
        recorded = run.export.said
    except DamagedRecord as error:
        error.remedy = f"{_ASK} {run.path}"
        raise
    if not recorded:
        raise RunError(f"{run.export.manifest} records no file", remedy=f"{_ASK} {run.path}")
    writers = build_exporters(run.recipe, str(run.path / "recipe.toml"), tuple(recorded))
    return [(writer, recorded[writer.form()]) for writer in writers if writer.form() in recorded]


def _shipped(run: RunFolder, writer: Exporter) -> Path:
    return run.export.shipped(writer.form(), writer.suffix)


def _checked(
    run: RunFolder, writer: Exporter, recipe_digest: str, recorded: Mapping[str, object]
) -> Report:
    path = _shipped(run, writer)
    records, unchecked = check_records(run)
    name, valid = "readable", f"a valid {writer.form()} file"
    try:
        written = writer.read_back(path)
    except PrunecError as error:
        details = Details(str(path), not_checked=(NOT_CHECKED, *unchecked))
        return Report((failed(name, valid, "none", f"{error.message}."),), details)
    uncounted = [f"MACs: {item}" for item in (written.cost.uncounted if written.cost else ())]
    unfit = writer.runs_on or writer.is_code
    code = (f"golden values of {writer.form()}: it is code",) if writer.is_code else ()
    details = Details(str(path), not_checked=(NOT_CHECKED, *code, *unchecked, *uncounted))
    checks = [
        Check(name, valid, valid, None, True),
        *_of_recipe(written, recipe_digest, recorded),
        *unchanged(written, path, {"sha256": str(recorded.get("sha256"))}),
        *_counts(written, recorded),
        *([] if unfit else [check_golden(path, runner_for(writer.suffix), recorded)]),
        _sealed(run.export),
        *records,
    ]
    return Report(tuple(checks), details)


def _sealed(export: ExportFolder) -> Check:
    """Check that the manifest is unchanged: the other checks rely on it."""
    name, whole, flaw = "manifest", "as it was written", export.flaw
    wrong = f"{flaw}; the values of the other checks may have been changed to fit."
    return failed(name, whole, "changed", wrong) if flaw else Check(name, whole, whole, None, True)


def _of_recipe(written: Written, recipe_digest: str, recorded: Mapping[str, object]) -> list[Check]:
    """Check that manifest and file name the recipe in the folder."""
    said = {"manifest": recorded.get("recipe_digest")}
    if written.metadata is not None:
        said["file"] = written.metadata.get(RECIPE_DIGEST)
    return [
        equal(
            f"recipe digest, {where}",
            recipe_digest[:12],
            str(stated)[:12],
            "recipe.toml is not the recipe that the file was made by.",
        )
        for where, stated in said.items()
    ]


def _counts(written: Written, recorded: Mapping[str, object]) -> list[Check]:
    """Check the file's MACs and parameters against the manifest."""
    if written.cost is None:
        return [failed("MACs", str(recorded.get("macs")), "not counted", f"{written.uncounted}.")]
    pairs = (("MACs", "macs", written.cost.macs), ("parameters", "params", written.cost.params))
    wrong = "the manifest records another number."
    return [
        equal(name, str(recorded.get(key)), str(counted), wrong) for name, key, counted in pairs
    ]
