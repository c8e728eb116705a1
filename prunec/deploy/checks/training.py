"""Checks of training: the targets of its passes, and the quality of its dense phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prunec.artifact import Step
from prunec.deploy.checks.budgets import KEPT
from prunec.deploy.checks.check import Check, at_most
from prunec.recipe import Budget
from prunec.tasks.quality import DECISIVE, Quality

DENSE = "dense_phase_"


def check_training(
    budget: Budget, steps: Sequence[Step], figures: Mapping[str, object]
) -> tuple[list[Check], list[str]]:
    """Return the checks of the training passes' targets, and what cannot be compared.

    Args:
        budget: budget of the recipe.
        steps: executed passes, with their reported details.
        figures: quality of the file by key; empty without a test split.
    """
    checks = [check for step in steps for check in _targets(step)]
    trained = [step for step in steps if "trained" in step.facts and step.error is None]
    sparse = [place for place, step in enumerate(trained) if _is_sparse(step)]
    if budget.accuracy_drop is None or not sparse:
        return checks, []
    known = dense_quality(trained[: sparse[-1] + 1])
    if known is None:
        return checks, [
            f"accuracy drop: {trained[sparse[-1]].name} had no dense phase to compare with; "
            "verify.budget.accuracy bounds the accuracy itself"
        ]
    quality, dense = known
    quality_now = figures.get(quality.key)
    if not isinstance(quality_now, int | float):
        return checks, [f"{quality.name} drop: there is no test split"]
    return [*checks, _drop(budget.accuracy_drop, quality, dense, float(quality_now))], []


def _targets(step: Step) -> list[Check]:
    """Return the checks of a pass's targets: a share of MACs, a sparsity."""
    return [
        Check(
            f"{step.name}: {name}",
            str(target["asked"]),
            float(target["found"]),
            None,
            not target["missed"],
            f"{target['missed']}." if target["missed"] else "",
        )
        for name, target in step.details.get("targets", {}).items()
    ]


def dense_quality(steps: Sequence[Step]) -> tuple[Quality, float] | None:
    """Return the network's quality before its weights or channels were chosen.

    Args:
        steps: steps of the training passes. The result is None if no dense phase was tested.
    """
    for step in reversed(steps):
        prefix = DENSE if _is_sparse(step) else "test_"
        for quality in DECISIVE:
            value = step.details.get(prefix + quality.key)
            if isinstance(value, int | float):
                return quality, float(value)
    return None


def _is_sparse(step: Step) -> bool:
    return bool({"gated", "masked"} & set(step.facts))


def _drop(limit: float, quality: Quality, dense: float, actual: float) -> Check:
    wrong = (
        f"the file's {quality.name} is {actual:.2f} %, the network's was {dense:.2f} % at the end "
        f"of its dense phase; the recipe allows {limit:g} points less. Train longer, above all "
        f"after weights or channels are chosen, or cut less. {KEPT.format('accuracy_drop=POINTS')}"
    )
    # Six digits: the difference of two percentages has errors of rounding.
    return at_most(f"budget: {quality.name} drop", limit, round(dense - actual, 6), wrong)
