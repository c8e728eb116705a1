"""Device budgets: memory, latency and operators of a file, measured if the recipe bounds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from prunec.catalogue import runner_for, runner_named
from prunec.cost.lifetimes import peak
from prunec.deploy.checks import Check
from prunec.deploy.checks.budgets import value_of
from prunec.deploy.checks.check import failed
from prunec.deploy.checks.limits import (
    check_activations,
    check_milliseconds,
    check_operators,
    check_resident,
)
from prunec.deploy.exporter import Exporter
from prunec.deploy.memory import memory_of
from prunec.deploy.onnx_file import onnx_operators
from prunec.deploy.operator_sets import operator_set, sets_for
from prunec.deploy.timing import Latency
from prunec.errors import PassError, PrunecError, RecipeError
from prunec.pipeline.opened_recipe import OpenedRecipe
from prunec.recipe import Budget

Findings = Iterator[Check | str]
"""Checks, and phrases on budgets that were not checked."""


def check_device(
    budget: Budget, writer: Exporter, path: Path, latency: Latency | None
) -> tuple[list[Check], list[str]]:
    """Check a file against the recipe's budgets for the device.

    Args:
        budget: the recipe's budgets.
        writer: exporter of the file's form.
        path: the file.
        latency: latency measured by the form's own runner; None where it was not measured.

    Returns:
        The checks; phrases on budgets that were not checked.
    """
    findings: list[Check | str] = []
    for name, one in (
        ("activation memory", _activations(budget, writer, path)),
        ("resident memory", _resident(budget, writer, path)),
        ("latency", _milliseconds(budget, writer, path, latency)),
        ("operators", _operators(budget, writer, path)),
    ):
        try:
            findings += one
        # A budget that cannot be measured fails: the recipe requires a figure.
        except PrunecError as error:
            wrong = f"{error.message}. {error.remedy}".strip()
            findings.append(failed(f"budget: {name}", "a figure", "none", wrong))
    checks = [one for one in findings if isinstance(one, Check)]
    return checks, [one for one in findings if isinstance(one, str)]


def _activations(budget: Budget, writer: Exporter, path: Path) -> Findings:
    limit = value_of(budget.activation_bytes, writer.form())
    if limit is None:
        return
    flow = writer.flow(path)
    if flow is None:
        yield f"activation memory: unknown for {writer.form()} files"
    else:
        yield check_activations(limit, peak(flow))


def _resident(budget: Budget, writer: Exporter, path: Path) -> Findings:
    limit = value_of(budget.resident_bytes, writer.form())
    if limit is None:
        return
    yield check_resident(limit, memory_of(path, runner_for(path.suffix)))


def _milliseconds(
    budget: Budget, writer: Exporter, path: Path, latency: Latency | None
) -> Findings:
    for name, limit in sorted((budget.latency_ms or {}).items()):
        runner = runner_named(name)
        if path.suffix not in runner.suffixes:
            yield f"latency on {name}: it does not open {path.suffix} files"
            continue
        # The measured rounds are those of the form's own runner; another one must time the file
        # itself.
        own = runner_for(writer.suffix).identity == runner.identity
        if latency is None or not own:
            loaded = runner.open(path)
            # Beside itself: times are only measured in pairs.
            timed = loaded.time(loaded)
        else:
            timed = latency
        yield check_milliseconds(limit, runner.identity, [ours for ours, _ in timed.rounds])


def require_judgeable(opened: OpenedRecipe, writers: Iterable[Exporter]) -> None:
    """Refuse budgets that no check could judge: an operator set that says nothing of the files of a
    form that it is stated for, and a latency on a runner that does not exist.

    Raises:
        RecipeError: there is such a budget.
    """
    for named in opened.recipe.verify.budget.latency_ms or {}:
        with suppress(PassError):  # a runtime that is missing here: the export may be elsewhere
            runner_named(named)
    sets = opened.recipe.verify.budget.operators
    stated = [(w, operator_set(name)) for w in writers if (name := value_of(sets, w.form()))]
    unknown = [(writer, target) for writer, target in stated if not target.judges(writer.suffix)]
    if not unknown:
        return
    (writer, target), *_ = unknown
    judged = ", ".join(f'{w.form()} = "{t.name}"' for w, t in stated if t.judges(w.suffix))
    others = ", ".join(sets_for(writer.suffix)) or "none"
    raise RecipeError(
        f"{opened.source}: verify.budget.operators: the operators of {target.name} are not those "
        f"of {writer.form()} files ({writer.suffix})",
        remedy=(f"State the forms that it is for: operators = {{ {judged} }}. " if judged else "")
        + f"Sets for {writer.form()} files: {others}.",
    )


def _operators(budget: Budget, writer: Exporter, path: Path) -> Findings:
    name = value_of(budget.operators, writer.form())
    if name is None:
        return
    target = operator_set(name)
    # A form that was added to a finished run, whose budget can no longer be stated by form.
    if not target.judges(path.suffix):
        yield f"operators of {target.name}: they are not those of {path.suffix} files"
        return
    # A converter computes what depends on no input, so it needs no operator of the target.
    converted = path.suffix == ".onnx" and bool(target.converted)
    used = onnx_operators(path, computed=True) if converted else writer.operators(path)
    if used is None:
        yield f"operators of {target.name}: unknown for {writer.form()} files"
    else:
        yield check_operators(target, used, path.suffix)
