"""All checks of a shipped file, in order; those that still can run do so after a failure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from torch import Tensor, nn

from prunec.cost import Cost
from prunec.cost.onnx_graph import count_onnx
from prunec.deploy.checks.budgets import check_budgets
from prunec.deploy.checks.costs import compare_costs
from prunec.deploy.checks.identity import interface, read, same_network, unchanged
from prunec.deploy.checks.outputs import Answers, compare_on_data, compare_random
from prunec.deploy.checks.report import Check, Report, failed
from prunec.deploy.checks.weights import compare_weights
from prunec.deploy.runtime import Session
from prunec.deploy.signature import metadata_of
from prunec.errors import PrunecError
from prunec.recipe import VerifySpec

if TYPE_CHECKING:
    from prunec.batches.data import Data
    from prunec.deploy.latency import Latency


def verify_file(
    path: Path,
    module: nn.Module,
    example: tuple[Tensor, ...],
    *,
    spec: VerifySpec,
    torch_cost: Cost,
    dense_macs: int | None = None,
    data: Data | None = None,
    manifest: Mapping[str, object] | None = None,
    latency: Latency | None = None,
) -> Report:
    """Compare a file with the network it was exported from.

    Args:
        path: the ONNX file.
        module: the network; compared in eval mode.
        example: its inputs, batch first.
        spec: tolerance, agreement and budgets.
        torch_cost: what the torch counter says of ``module``.
        dense_macs: MACs of the network before anything was cut, for the MAC budget.
        data: the test split, for outputs, agreement and accuracy on real samples.
        manifest: what was recorded at export: ``sha256`` of the file, ``recipe_digest``.
        latency: as measured against the dense network, for the latency budget.

    Returns:
        The report. Nothing that a file may hold raises.
    """
    model, readable = read(path)
    if model is None:
        return Report((readable,), {"file": str(path)})
    recorded = manifest or {}
    checks = [readable, *same_network(model, module, recorded)]
    checks += interface(model, module, example)
    checks += unchanged(model, path, recorded)
    weights, details = compare_weights(model, module)
    checks.append(weights)
    cost = _add_costs(checks, model, torch_cost)
    training = module.training
    module.eval()
    try:
        answers = _add_outputs(checks, path, module, example, spec, data)
    finally:
        module.train(training)
    budgets, unmeasured = check_budgets(spec.budget, path, cost, dense_macs, answers, latency)
    if data is None:
        unmeasured.insert(0, "accuracy and agreement: there is no test split")
    details |= {"file": str(path), "bytes": path.stat().st_size, "not checked": unmeasured}
    details |= _measured(model, cost, dense_macs, answers)
    return Report((*checks, *budgets), details)


def _add_costs(checks: list[Check], model: onnx.ModelProto, torch_cost: Cost) -> Cost | None:
    try:
        cost = count_onnx(model)
    except PrunecError as error:
        checks.append(failed("MACs", torch_cost.macs, "not counted", f"{error.message}."))
        return None
    checks += compare_costs(model, torch_cost, cost)
    return cost


def _add_outputs(
    checks: list[Check],
    path: Path,
    module: nn.Module,
    example: tuple[Tensor, ...],
    spec: VerifySpec,
    data: Data | None,
) -> Answers | None:
    try:
        session = Session(path)
    except PrunecError as error:
        checks.append(failed("outputs, random", 0.0, "no outputs", f"{error.message}."))
        return None
    tolerance = spec.tolerance
    checks.append(
        compare_random(session, module, example, batches=spec.random_batches, tolerance=tolerance)
    )
    if data is None:
        return None
    found, answers = compare_on_data(
        session, module, example, data, tolerance=tolerance, agreement=spec.agreement
    )
    checks += found
    return answers


def _measured(
    model: onnx.ModelProto, cost: Cost | None, dense_macs: int | None, answers: Answers | None
) -> dict[str, object]:
    found: dict[str, object] = {
        "metadata": {k: v for k, v in metadata_of(model).items() if len(v) <= 100}
    }
    if cost:
        found |= {"macs": cost.macs, "params": cost.params}
    if cost and dense_macs:
        found |= {"dense macs": dense_macs, "macs ratio": cost.macs / dense_macs}
    if answers:
        found |= {"test samples": answers.samples, **answers.file.figures}
    return found
