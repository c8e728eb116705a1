"""Verification of a file against the original network, before it was cut.

The cut network has other weights, other shapes and fewer MACs, so these cannot be compared; its
outputs and its metadata can.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from prunec.cost import Cost
from prunec.deploy.checks import Check, Details, Report
from prunec.deploy.checks.check import at_most, failed
from prunec.deploy.checks.costs import metadata_macs
from prunec.deploy.checks.identity import interface, unchanged
from prunec.deploy.checks.outputs import TestSplit, compare_outputs
from prunec.deploy.checks.reference import Reference
from prunec.deploy.checks.weights import holds_tensors_of
from prunec.deploy.exporter import Exporter
from prunec.deploy.runner import Runner
from prunec.deploy.signature import GRAPH_DIGEST, MACS, WEIGHTS_DIGEST
from prunec.deploy.written import Written
from prunec.errors import PrunecError
from prunec.models.state import weights_digest
from prunec.recipe import VerifySpec


def is_of_another(path: Path, module: nn.Module, exporter: Exporter) -> bool:
    """Return whether a file holds a cut or rewritten network rather than ``module`` itself.

    It does if it neither records the weights digest of ``module`` nor has all its tensors by name
    and shape. An unreadable file counts as the network's own: reading it again reports why.
    """
    try:
        written = exporter.read_back(path)
    except PrunecError:
        return False
    named = (written.metadata or {}).get(WEIGHTS_DIGEST) == weights_digest(module)
    return not named and not holds_tensors_of(written.weights or {}, module)


def verify_against_original(
    path: Path,
    module: nn.Module,
    example: tuple[Tensor, ...],
    *,
    exporter: Exporter,
    runner: Runner,
    spec: VerifySpec,
    torch_cost: Cost,
    data: TestSplit | None = None,
) -> Report:
    """Compare a file of a cut network with the original network.

    Args:
        path: path of the file.
        module: original network, in evaluation mode.
        example: inputs of the network, batch first.
        exporter: exporter of the file's form.
        runner: runner of the file.
        spec: tolerance and agreement.
        torch_cost: cost of the original.
        data: labelled samples, for agreement and accuracy.

    Returns:
        The report: names and shapes, metadata, cost at most that of the original, and outputs. No
        content of a file raises an error.
    """
    valid = f"a valid {exporter.form()} file"
    try:
        written = exporter.read_back(path)
    except PrunecError as error:
        return Report((failed("readable", valid, "none", f"{error.message}."),))
    checks = [Check("readable", valid, valid, None, True), *interface(written, example)]
    seals, unsealed = _seals(written, path)
    costs, uncounted = _costs(written, torch_cost)
    outputs, answers, remarks = compare_outputs(
        path, Reference(module), example, runner, spec, exporter.bounds(spec), data
    )
    not_checked = ["weights: they are those of another network, which was cut or rewritten"]
    if data is None:
        not_checked.append("accuracy and agreement: no data were given")
    details = Details(
        file=str(path),
        bytes=path.stat().st_size,
        not_checked=(*not_checked, *unsealed, *uncounted, *remarks),
        samples=answers.samples if answers else None,
        figures=answers.file.figures if answers else {},
    )
    return Report((*checks, *seals, *costs, *outputs), details)


def _seals(written: Written, path: Path) -> tuple[list[Check], list[str]]:
    """Return the check of the file's own graph digest; files of other tools have none."""
    if GRAPH_DIGEST not in (written.metadata or {}):
        return [], ["graph digest: the file has none, prunec did not write it"]
    return unchanged(written, path, {}), []


def _costs(written: Written, original: Cost) -> tuple[list[Check], list[str]]:
    """Return the checks that the file has no more MACs than the original, and as many as it
    records.
    """
    cost, recorded = written.cost, (written.metadata or {}).get(MACS)
    # Sums that lack an operator cannot be compared.
    if cost is None or cost.uncounted or original.uncounted:
        reasons = [written.uncounted or "the form is not counted"] if cost is None else []
        reasons += map(str, (*original.uncounted, *(cost.uncounted if cost else ())))
        return [], [f"MACs: {'; '.join(reasons)}"]
    wrong = "the file has more MACs than the original."
    checks = [at_most("MACs / original's", 1.0, cost.macs / max(original.macs, 1), wrong)]
    if recorded is not None:
        checks.append(metadata_macs(recorded, cost.macs))
    return checks, []
