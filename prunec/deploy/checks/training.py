"""Checks what training was to reach: its own target, and the quality of its dense phase."""

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
    """Return the checks of what training passes were to reach, and what cannot be compared.

    Args:
        budget: what the recipe allows.
        steps: the passes that ran, with what each told.
        figures: what the file is worth, by the key of its figure; empty without a test split.
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
    found = figures.get(quality.key)
    if not isinstance(found, int | float):
        return checks, [f"{quality.name} drop: there is no test split"]
    return [*checks, _drop(budget.accuracy_drop, quality, dense, float(found))], []


def _targets(step: Step) -> list[Check]:
    """What a pass was to reach: a share of the MACs, a sparsity."""
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
    """Return what the network was worth before its weights or channels were chosen.

    Args:
        steps: those of the training passes; None is returned where no dense phase was tested.
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


def _drop(limit: float, quality: Quality, dense: float, found: float) -> Check:
    wrong = (
        f"the file's {quality.name} is {found:.2f} %, the network's was {dense:.2f} % when its "
        f"dense phase ended; the recipe allows {limit:g} points less. Train longer, most of all "
        f"after the choice of what stays, or cut less. {KEPT.format('accuracy_drop=POINTS')}"
    )
    return at_most(f"budget: {quality.name} drop", limit, round(dense - found, 6), wrong)
