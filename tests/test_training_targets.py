"""The gate: what a training was to reach, and how far the file may lie below the dense network."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training.small_training import small_context, small_net

from prunec.artifact import Step
from prunec.deploy.checks.training import check_training
from prunec.recipe import Budget, dumps, loads
from prunec.training.dense_phase import (
    CLASS,
    dense_ends,
    dense_ends_within,
    dense_remarks,
    from_tally,
    in_tally,
)
from prunec.training.loop import fit
from prunec.training.method import Method, Moment

FIGURES = {"accuracy": 80.0}


def step(name: str, facts: tuple[str, ...] = ("trained", "gated"), **details: Any) -> Step:
    error = None if name.startswith("train") else 0.0
    return Step(name, {}, facts, (10, 5), (10, 5), error, 1.0, "", (), details)


def verdicts(checks: list[Any]) -> dict[str, bool]:
    return {check.name: check.passed for check in checks}


@pytest.mark.parametrize(
    ("dense", "bound", "passed"),
    [(84.9, 5.0, True), (85.0, 5.0, True), (85.1, 5.0, False), (70.0, 0.0, True), (81, 0.5, False)],
)
def test_a_file_may_lie_so_far_below_the_dense_phase(
    dense: float, bound: float, passed: bool
) -> None:
    trained = step("train-gdp", dense_phase_accuracy=dense)
    cut = step("remove-channels", ("trained",))
    checks, untold = check_training(Budget(accuracy_drop=bound), [trained, cut], FIGURES)
    assert verdicts(checks) == {"budget: accuracy drop": passed}
    assert not untold
    if not passed:
        assert f"{dense:.2f} %" in checks[0].message
        assert f"{bound:g} points" in checks[0].message


def test_a_miou_falls_as_an_accuracy_does() -> None:
    trained = step("train-gdp", dense_phase_miou=50.0)
    checks, _ = check_training(Budget(), [trained], {"miou": 44.0, "pixel_accuracy": 90.0})
    assert verdicts(checks) == {"budget: mIoU drop": False}


def test_a_dense_training_before_is_what_it_is_compared_with() -> None:
    steps = [
        step("train-dense", ("trained",), test_accuracy=90.0),
        step("train-rigl", ("trained", "masked"), test_accuracy=81.0),
    ]
    checks, _ = check_training(Budget(), steps, FIGURES)
    assert verdicts(checks) == {"budget: accuracy drop": False}


def test_a_fine_tuning_after_the_cut_is_compared_with_the_dense_phase_before_it() -> None:
    steps = [
        step("train-gdp", dense_phase_accuracy=90.0, test_accuracy=70.0),
        step("remove-channels", ("trained",)),
        step("train-dense", ("trained",), test_accuracy=80.0),
    ]
    checks, _ = check_training(Budget(), steps, FIGURES)
    assert verdicts(checks) == {"budget: accuracy drop": False}


@pytest.mark.parametrize(
    ("budget", "steps", "figures", "told"),
    [
        (Budget(), [step("train-rigl", ("trained", "masked"))], FIGURES, "no dense phase"),
        (Budget(), [step("train-gdp", dense_phase_accuracy=90)], {}, "no test split"),
        (Budget.model_validate({"accuracy_drop": False}),
         [step("train-gdp", dense_phase_accuracy=90)], FIGURES, ""),
        (Budget(), [step("train-dense", ("trained",), test_accuracy=90)], FIGURES, ""),
        (Budget(), [step("remove-channels", ())], FIGURES, ""),
        (Budget(), [], FIGURES, ""),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_said(
    budget: Budget, steps: list[Step], figures: dict[str, object], told: str
) -> None:
    checks, untold = check_training(budget, steps, figures)
    assert not checks
    assert bool(told) == bool(untold)
    assert told in " ".join(untold)


@pytest.mark.parametrize("missed", ["", "the training ended before the gates were chosen"])
def test_a_target_that_training_missed_fails(missed: str) -> None:
    target = {"MACs / dense": {"asked": "≤ 0.5", "found": 0.5, "missed": missed}}
    trained = step("train-gdp", targets=target, dense_phase_accuracy=80.0)
    checks, _ = check_training(Budget(), [trained], FIGURES)
    assert verdicts(checks)["train-gdp: MACs / dense"] == (not missed)
    assert missed in checks[0].message


def test_no_bound_survives_text() -> None:
    text = 'name = "a"\n[model]\nname = "b"\n[[pass]]\nname = "c"\n[verify.budget]\n'
    for value, actual in (("false", None), ("2", 2.0), ("0", 0.0)):
        recipe = loads(f"{text}accuracy_drop = {value}\n")
        assert recipe.verify.budget.accuracy_drop == actual
        assert loads(dumps(recipe)) == recipe
    assert loads(text).verify.budget.accuracy_drop == 5.0


@pytest.mark.parametrize("steps", [1, 3, 4, 94])
@pytest.mark.parametrize("epochs", [None, 0.0, 0.2, 0.75, 1.0, 1.75, 2.0, 2.99, 3.0])
def test_a_dense_phase_is_tested_once_when_it_ends(epochs: float | None, steps: int) -> None:
    """At the end of an epoch by that epoch's own test, else before the first step after it."""
    collected = []
    for epoch in range(3):
        for at in range(steps):
            moment = Moment(epoch, at, steps, 3, 0.1)
            if dense_ends_within(epochs, moment):
                collected.append(moment.progress)
        end = Moment(epoch, steps, steps, 3, 0.1)
        if dense_ends(epochs, end):
            collected.append(end.progress)
    if epochs is None:
        assert not collected
    else:
        (at,) = collected
        assert epochs - 1e-9 <= at < epochs + 1 / steps


def test_what_a_dense_phase_was_worth_is_reported_and_survives_a_checkpoint() -> None:
    dense = {"accuracy": 83.25, "epochs": 0.75}
    assert from_tally({"loss": 3.0, **in_tally(dense)}) == dense
    notes, details = dense_remarks([{"epoch": 1, "dense_phase": dense}, {"epoch": 2}])
    assert notes == ("test accuracy 83.25 % after the dense phase of 0.75 epochs",)
    assert details == {"dense_phase_accuracy": 83.25}
    assert dense_remarks([{"epoch": 1}]) == ((), {})
    before, _ = dense_remarks([{"dense_phase": {"miou": 9.0, "epochs": 0.0}}])
    assert before == ("test mIoU 9.00 % before the training",)


@pytest.mark.parametrize("epochs", [0.0, 0.5, 1.0, 1.4])
def test_testing_the_dense_network_changes_nothing_of_the_training(
    epochs: float, tmp_path: Path
) -> None:
    nets, actual = [], []
    for dense in (None, epochs):
        net = small_net()
        context = replace(small_context(tmp_path / str(dense), epochs=2), dense_epochs=dense)
        history = fit(net, Method(), context)
        nets.append(net.state_dict())
        actual.append([metrics.pop("dense_phase", None) for metrics in history])
    assert all(torch.equal(a, b) for a, b in zip(*(n.values() for n in nets), strict=True))
    assert actual[0] == [None, None]
    (known,) = [dense for dense in actual[1] if dense]
    assert actual[1].index(known) == max(0, math.ceil(epochs) - 1)
    assert known["epochs"] == pytest.approx(epochs, abs=1 / 6)
    assert 0 <= known["accuracy"] <= 100
    shares = [value for key, value in known.items() if key.startswith(CLASS)]
    assert all(0 <= share <= 100 for share in shares)
    assert min(shares) <= known["accuracy"] <= max(shares)
