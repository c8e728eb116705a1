"""The gate before shipping: is this file the network that was trained, and within its budgets?

All checks of a file, in order. A file that cannot be read whole is tried no further; any other
failure stops no check.
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
from prunec.deploy.checks.report import Report
from prunec.deploy.checks.some import Some
from prunec.deploy.checks.weights import compare_weights
from prunec.deploy.exporter import Exact, Exporter
from prunec.deploy.runner import Runner
from prunec.deploy.timing import Latency
from prunec.deploy.written import Graph, Written
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
    again: Callable[[Written], Graph | None] = lambda _: None,
) -> Report:
    """Compare a file with the network it was exported from.

    Args:
        path: the file.
        module: the network; compared in eval mode.
        example: its inputs, batch first.
        exporter: whose form it has: reads it back, and says how it is judged.
        runner: what runs it.
        spec: tolerance, agreement and budgets.
        torch_cost: what the torch counter says of ``module``.
        dense_macs: MACs of the network before anything was cut, for the MAC budget.
        data: the test split, for outputs, agreement and accuracy on real samples.
        manifest: what was recorded at export: ``sha256`` of the file, ``graph_digest``,
            ``recipe_digest``; an empty text where it should have been and was not.
        latency: as measured against the dense network, for the latency budget.
        again: exports the network anew, to compare the graphs node by node; a file that was
            written a moment ago needs none.

    Returns:
        The report. Nothing that a file may hold raises.
    """
    name, valid = "readable", f"a valid {exporter.form()} file"
    try:
        written = exporter.read_back(path)
    except PrunecError as error:
        return Report((failed(name, valid, "none", f"{error.message}."),), Details(str(path)))
    recorded = manifest or {}
    checks = [Check(name, valid, valid, None, True)]
    checks += same_network(written, module, recorded)
    checks += interface(written, example)
    checks += unchanged(written, path, recorded)
    exact = isinstance(exporter, Exact)
    details = Details()
    graphs, graph_untold = compare_graphs(written, again)
    checks += graphs
    if exact and written.weights is not None:
        weights, constants, missing = compare_weights(written.weights, module)
        checks.append(weights)
        details = Details(constants=constants, missing=missing)
    checks += _costs(written, torch_cost, exact)
    training = module.training
    module.eval()
    try:
        found, answers, told = compare_outputs(
            path, module, example, runner, spec, exporter.bounds(spec), data
        )
        found += _as_run(exporter, path, runner)
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
    )
    if data is None:
        unmeasured.insert(0, "accuracy and agreement: there is no test split")
    details = replace(
        _measured(details, written, dense_macs, answers),
        file=str(path),
        bytes=exporter.size(path),
        not_checked=(*unmeasured, *graph_untold, *told),
        runner=runner.identity,
    )
    return Report((*checks, *found, *budgets), details)


def verify_elsewhere(
    path: Path,
    module: nn.Module,
    example: tuple[Tensor, ...],
    *,
    exporter: Exporter,
    runner: Runner,
    spec: VerifySpec,
    data: TestSplit | None,
) -> tuple[list[Check], list[str]]:
    """Compare what another runner makes of a file: on the test split, or random inputs without one.

    A runner that was asked for by name must open the file. One that answers some test images alone
    is judged by its outputs and answers, not by what those few are worth.

    Returns:
        The checks, under the runner's name; and what was not checked, where it cannot open the
        file or did not answer every test image.
    """
    name, bounds = runner.identity.name, exporter.bounds(spec)
    untold: list[str] = []
    try:
        loaded = runner.open(path)
    except PrunecError as error:
        if not runner.unasked:
            return [failed(f"{name}: loads", "the file", None, f"{error.message}.")], []
        return [], [f"{exporter.form()} under {name}: {error.message}"]
    if data is not None:
        some = Some(data, runner.samples)
        checks, _ = compare_on_data(loaded, module, example, some, bounds)
        if some.less:
            checks = checks[:2]
            few = f"all but the first {runner.samples} test images"
            untold = [f"{exporter.form()} under {name}: {few}, and the accuracy"]
    else:
        batches, declared = spec.random_batches, spec.input_range
        found, _ = compare_random(
            loaded, module, example, batches=batches, bounds=bounds, declared=declared
        )
        checks = [found]
    return [replace(check, name=f"{name}: {check.name}") for check in checks], untold


def _as_run(exporter: Exporter, path: Path, runner: Runner) -> list[Check]:
    """Checks of a file as it was loaded; one that cannot be fails others."""
    with suppress(PrunecError):
        return exporter.as_run(path, runner.open(path))
    return []


def _costs(written: Written, torch_cost: Cost, exact: bool) -> list[Check]:
    """All counts of an exact form; a lossy one keeps its MACs, and may store more."""
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
    said, cost = written.metadata or {}, written.cost
    details = replace(details, metadata={k: v for k, v in said.items() if len(v) <= 100})
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
