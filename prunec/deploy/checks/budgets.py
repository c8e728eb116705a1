"""Checks of the recipe's budgets: cost, size, quality and latency of the shipped network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from prunec.cost import Cost
from prunec.deploy.alignment import remedy
from prunec.deploy.checks.answers import Answers
from prunec.deploy.checks.check import Check, at_least, at_most
from prunec.deploy.timing import CONFIDENCE, MARGIN, Latency
from prunec.recipe import Budget
from prunec.tasks.quality import ACCURACY, MIOU, Quality
from prunec.wording import percent

KEPT = (
    "A run keeps the budget that it began with. To allow more, begin another: prunec train RECIPE "
    "--set verify.budget.{}"
)
"""Remedy for a budget that is too narrow; ``{}`` is its key and value."""


UNCUT = "nothing was cut: the dense network is the same file"
"""Why a file is not timed beside the dense network's."""
V = TypeVar("V", int, str)

UNTIMED = "latency against dense: it was not measured"
"""Budget that was not checked because no time of the dense network is known."""


def check_budgets(
    budget: Budget,
    path: Path,
    form: str,
    size: int,
    cost: Cost | None,
    dense_macs: int | None,
    answers: Answers | None,
    latency: Latency | None,
    *,
    uncut: bool = False,
) -> tuple[list[Check], list[str]]:
    """Return the checks of the stated budgets, and the budgets that could not be measured.

    A file of an ``uncut`` network is the dense network's own: the ratio of their times is 1.
    """
    checks: list[Check] = []
    unmeasured: list[str] = []
    if budget.macs_ratio is not None:
        if cost and cost.uncounted:
            unmeasured.append(f"MACs against dense: {cost.uncounted[0]}")
        elif cost and dense_macs:
            checks.append(_macs(budget.macs_ratio, cost, dense_macs))
        else:
            whose = "the dense network's MACs" if cost else f"the MACs of {form} files"
            unmeasured.append(f"MACs against dense: {whose} are unknown")
    checks += _of_the_file(budget, form, size, cost)
    for quality, limit in ((ACCURACY, budget.accuracy), (MIOU, budget.miou)):
        if limit is None:
            continue
        if answers:
            checks.append(_quality(quality, limit, answers))
        else:
            unmeasured.append(f"{quality.name} budget: there is no test split")
    if budget.latency_ratio is not None:
        if uncut:
            checks.append(_uncut(budget.latency_ratio))
        elif latency:
            checks.append(_latency(budget.latency_ratio, latency, path))
        else:
            unmeasured.append(UNTIMED)
    return checks, unmeasured


def _macs(limit: float, cost: Cost, dense: int) -> Check:
    ratio = cost.macs / dense
    wrong = (
        f"the file has {cost.macs:,} MACs, {percent(ratio)} of the dense network's "
        f"{dense:,}; the recipe allows {100 * limit:g} %. {KEPT.format('macs_ratio=SHARE')}"
    )
    return at_most("budget: MACs / dense", limit, ratio, wrong)


def value_of(budget: V | Mapping[str, V] | None, form: str) -> V | None:
    """Return the value of a budget for a form: one for all forms, or the form's own."""
    return budget.get(form) if isinstance(budget, Mapping) else budget


def _of_the_file(budget: Budget, form: str, size: int, cost: Cost | None) -> list[Check]:
    """Return the checks of MACs, parameters and bytes, naming the largest layers."""
    checks = _costs(budget, cost) if cost else []
    limit = value_of(budget.bytes, form)
    return checks if limit is None else [*checks, _bytes(limit, size, form)]


def _costs(budget: Budget, cost: Cost) -> list[Check]:
    sides = (
        ("MACs", budget.macs, cost.macs, {layer.name: layer.macs for layer in cost.layers}),
        ("params", budget.params, cost.params, {x.name: x.params for x in cost.layers}),
    )
    return [
        _count(name, limit, actual, by_layer)
        for name, limit, actual, by_layer in sides
        if limit is not None
    ]


def _count(name: str, limit: int, actual: int, by_layer: Mapping[str, int]) -> Check:
    most = sorted(by_layer.items(), key=lambda entry: -entry[1])[:3]
    listed = ", ".join(f"{layer} ({count:,})" for layer, count in most)
    wrong = (
        f"the file has {actual:,} {name}; the recipe allows {limit:,}. Most are in {listed}: cut "
        f"more there. {KEPT.format(f'{name.lower()}=N')}"
    )
    passed, title = actual <= limit, "parameters" if name == "params" else name
    return Check(f"budget: {title}", f"≤ {limit:,}", actual, None, passed, _if(not passed, wrong))


def _bytes(limit: int, size: int, form: str) -> Check:
    wrong = (
        f"the file of {form} has {size:,} bytes; the recipe allows {limit:,}. Cut more, or ship a "
        f"form of fewer bytes (--int8, --fp16). {KEPT.format('bytes=N')}"
    )
    return Check(
        "budget: bytes", f"≤ {limit:,}", size, None, size <= limit, _if(size > limit, wrong)
    )


def _quality(quality: Quality, limit: float, answers: Answers) -> Check:
    actual = answers.file.figures.get(quality.key, float("nan"))
    kept = KEPT.format(f"{quality.key}=PERCENT")
    wrong = (
        f"the file's {quality.name} is {actual:.2f} %; the recipe demands {limit:g} %. "
        f"Train longer. {kept}"
    )
    return at_least(f"budget: {quality.name}", limit, actual, wrong)


_RATIO = "budget: latency / dense"


def _uncut(limit: float) -> Check:
    passed = limit * (1 + MARGIN) >= 1
    wrong = f"{UNCUT}. Cut more. {KEPT.format('latency_ratio=RATIO')}"
    return Check(_RATIO, f"≤ {limit:g}", 1.0, MARGIN, passed, _if(not passed, wrong))


def _latency(limit: float, latency: Latency, path: Path) -> Check:
    wrong = (
        f"the file takes {latency.shipped_ms:.3g} ms, the dense network {latency.dense_ms:.3g} ms. "
    )
    # A budget fails only on evidence: noise must not stop a release.
    passed = not latency.certainly_above(limit)
    certain = f"At {percent(CONFIDENCE)} confidence the ratio is at least {latency.least:.3g}. "
    kept = f" {KEPT.format('latency_ratio=RATIO')}"
    message = "" if passed else wrong + (certain if latency.least else "") + remedy(path) + kept
    return Check(_RATIO, f"≤ {limit:g}", latency.reported, MARGIN, passed, message)


def _if(condition: bool, text: str) -> str:
    return text if condition else ""
