"""Gate before shipping: whether a file is the trained network, and within its budgets.

All checks of a file, in order. A file that cannot be read completely gets no further checks; any
other failure stops none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from prunec.cost import Cost
from prunec.deploy.checks.answers import Answers
from prunec.deploy.checks.budgets import check_budgets
from prunec.deploy.checks.check import Check, failed
from prunec.deploy.checks.costs import compare_costs, compare_macs
from prunec.deploy.checks.details import Details
from prunec.deploy.checks.graph import compare_graphs
from prunec.deploy.checks.identity import interface, same_network, unchanged
from prunec.deploy.checks.outputs import TestSplit, compare_on_data, compare_outputs, compare_random
from prunec.deploy.checks.reference import Reference
from prunec.deploy.checks.report import Report
from prunec.deploy.checks.some import Some
from prunec.deploy.checks.weights import compare_weights
from prunec.deploy.exporter import Exact, Exporter
from prunec.deploy.runner import Runner
from prunec.deploy.timing import Latency
from prunec.deploy.written import Written, WrittenGraph
from prunec.errors import PrunecError
from prunec.recipe import VerifySpec


def verify_file(
    path: Path,
    module: nn.Module,
    example: tuple[Tensor, ...],
    *,
    exporter: Exporter,
    runner: Runner,
    spec: VerifySpec,
    torch_cost: Cost,
    dense_macs: int | None = None,
    data: TestSplit | None = None,
    manifest: Mapping[str, object] | None = None,
    latency: Latency | None = None,
    uncut: bool = False,
    again: Callable[[Written], WrittenGraph | None] = lambda _: None,
    reference: Reference | None = None,
    written: Written | None = None,
) -> Report:
    """Compare a file with the network it was exported from.

    Args:
        path: path of the file.
        module: network; compared in evaluation mode.
        example: inputs of the network, batch first.
        exporter: exporter of the file's form, which reads it back and sets its bounds.
        runner: runner of the file.
        spec: tolerance, agreement and budgets.
        torch_cost: cost of ``module`` by the torch counter.
        dense_macs: MACs of the dense network, for the MAC budget.
        data: test split, for outputs, agreement and accuracy on real samples.
        manifest: records of the export: ``sha256`` of the file, ``graph_digest``,
            ``recipe_digest``; an empty text for a required record that is missing.
        latency: latency measured against the dense network, for the latency budget.
        uncut: whether the file is the dense network's own, so that there is nothing to measure.
        again: function that exports the network again, to compare the graphs node by node; not
            needed for a file written just now.
        reference: the network's outputs, shared by all files of one network.
        written: content of the file, if it was read back since it was written.

    Returns:
        The report. No content of a file raises an error.
    """
    name, valid = "readable", f"a valid {exporter.form()} file"
    try:
        written = written or exporter.read_back(path)
    except PrunecError as error:
        return Report((failed(name, valid, "none", f"{error.message}."),), Details(str(path)))
    recorded = manifest or {}
    checks = [Check(name, valid, valid, None, True)]
    checks += same_network(written, module, recorded)
    checks += interface(written, example)
    checks += unchanged(written, path, recorded)
    exact = isinstance(exporter, Exact)
    details = Details()
    graphs, graphs_not_compared = compare_graphs(written, again)
    checks += graphs
    if exact and written.weights is not None:
        weights, constants, missing = compare_weights(written.weights, module)
        checks.append(weights)
        details = Details(constants=constants, missing=missing)
    checks += _costs(written, torch_cost, exact)
    training = module.training
    module.eval()
    try:
        outputs, answers, remarks = compare_outputs(
            path,
            reference or Reference(module),
            example,
            runner,
            spec,
            exporter.bounds(spec),
            data,
        )
        outputs += _as_run(exporter, path, runner)
    finally:
        module.train(training)
    budgets, unmeasured = check_budgets(
        spec.budget,
        path,
        exporter.form(),
        exporter.size(path),
        written.cost,
        dense_macs,
        answers,
        latency,
        uncut=uncut,
    )
    if data is None:
        unmeasured.insert(0, "accuracy and agreement: there is no test split")
    details = replace(
        _measured(details, written, dense_macs, answers),
        file=str(path),
        bytes=exporter.size(path),
        not_checked=(*unmeasured, *graphs_not_compared, *remarks),
        runner=runner.identity,
    )
    return Report((*checks, *outputs, *budgets), details)


def verify_elsewhere(
    path: Path,
    module: nn.Module,
    example: tuple[Tensor, ...],
    *,
    exporter: Exporter,
    runner: Runner,
    spec: VerifySpec,
    data: TestSplit | None,
    reference: Reference | None = None,
) -> tuple[list[Check], list[str]]:
    """Compare a file under another runner: on the test split, or on random inputs.

    A runner that was named explicitly must open the file. A runner that answers only some test
    images is judged by outputs and answers, not by the quality on those few.

    Returns:
        The checks, under the runner's name, and what was not checked because the runner cannot open
        the file or did not answer every test image.
    """
    name, bounds = runner.identity.name, exporter.bounds(spec)
    network = reference or Reference(module)
    not_checked: list[str] = []
    try:
        loaded = runner.open(path)
    except PrunecError as error:
        if not runner.unasked:
            return [failed(f"{name}: loads", "the file", None, f"{error.message}.")], []
        return [], [f"{exporter.form()} under {name}: {error.message}"]
    if data is not None:
        some = Some(data, runner.samples)
        checks, _ = compare_on_data(loaded, network, example, some, bounds)
        if some.less:
            # Outputs and agreement; qualities of a few samples say little.
            checks = checks[:2]
            few = f"all but the first {runner.samples} test images"
            not_checked = [f"{exporter.form()} under {name}: {few}, and the accuracy"]
    else:
        batches, declared = spec.random_batches, spec.input_range
        random, _ = compare_random(
            loaded, network, example, batches=batches, bounds=bounds, declared=declared
        )
        checks = [random]
    return [replace(check, name=f"{name}: {check.name}") for check in checks], not_checked


def _as_run(exporter: Exporter, path: Path, runner: Runner) -> list[Check]:
    """Return further checks of the loaded file; none if it cannot be opened, which fails
    elsewhere.
    """
    with suppress(PrunecError):
        return exporter.as_run(path, runner.open(path))
    return []


def _costs(written: Written, torch_cost: Cost, exact: bool) -> list[Check]:
    """Return all count checks of an exact form; a lossy form keeps its MACs but may store more."""
    if written.uncounted:
        return [failed("MACs", torch_cost.macs, "not counted", f"{written.uncounted}.")]
    if written.cost is None:
        return []
    if not exact:
        return [compare_macs(torch_cost, written.cost)]
    return compare_costs(written.metadata or {}, torch_cost, written.cost)


def _measured(
    details: Details, written: Written, dense_macs: int | None, answers: Answers | None
) -> Details:
    metadata, cost = written.metadata or {}, written.cost
    details = replace(details, metadata={k: v for k, v in metadata.items() if len(v) <= 100})
    if cost:
        details = replace(details, macs=cost.macs, params=cost.params, dense_macs=dense_macs)
    if answers:
        details = replace(
            details,
            samples=answers.samples,
            figures=answers.file.figures,
            classes=answers.classes,
            flips=answers.flips,
        )
    return details
