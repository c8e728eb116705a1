"""Compares what torch and onnxruntime compute, on random inputs and on the test split."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from prunec.deploy.checks.answers import Answers, Bounds, answer_checks, top_answers
from prunec.deploy.checks.check import Check, failed
from prunec.deploy.checks.gaps import (
    Gap,
    amplified,
    comparable,
    decided,
    farthest,
    gap_of,
    unlike,
    untold,
)
from prunec.deploy.checks.proving import unprovable
from prunec.deploy.checks.random_inputs import Range, random_batches
from prunec.deploy.checks.rounding import Noise, Rounding, run
from prunec.deploy.checks.samples import Tally
from prunec.deploy.runner import LoadedFile, Runner
from prunec.errors import PrunecError
from prunec.recipe import VerifySpec
from prunec.tasks.task import Task

_TEST_BATCH = 32
_TEST_VALUES = 2**26  # of outputs that a batch has at most: a quarter of a gigabyte


class TestSplit(Protocol):
    """Labelled samples that both engines answer."""

    @property
    def task(self) -> Task:
        """What is asked of a network."""

    def test_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs [N, …] and int64 labels, in one order."""


def compare_outputs(
    path: Path,
    module: nn.Module,
    example: tuple[Tensor, ...],
    runner: Runner,
    spec: VerifySpec,
    bounds: Bounds,
    data: TestSplit | None,
) -> tuple[list[Check], Answers | None, list[str]]:
    """Run a file beside the network, on random inputs and on the test split if there is one.

    Returns:
        The checks; the answers on the test split; and what is to be known of outputs that prove
        little.
    """
    try:
        loaded = runner.open(path)
    except PrunecError as error:
        return [failed("outputs, random", 0.0, "no outputs", f"{error.message}.")], None, []
    random, told = compare_random(
        loaded,
        module,
        example,
        batches=spec.random_batches,
        bounds=bounds,
        declared=spec.input_range,
    )
    if data is None:
        return [random], None, told
    found, answers = compare_on_data(loaded, module, example, data, bounds)
    return [random, *found], answers, told


def compare_random(
    session: LoadedFile,
    module: nn.Module,
    example: tuple[Tensor, ...],
    *,
    batches: int,
    bounds: Bounds,
    declared: Range | None = None,
) -> tuple[Check, list[str]]:
    """Compare all outputs on ``batches`` random batches of different sizes, 1 and 2 first.

    Returns:
        The check, and what is to be known of outputs that prove little: constant or not finite.
    """
    judge, where = _Judge(module, bounds), ""
    seen: list[list[np.ndarray]] = []
    given = list(random_batches(example, batches, declared))
    pairs = _outputs(session, module, given)
    for inputs in given:
        where = f"on a random batch of {len(inputs[0])}"
        try:
            ours, theirs = next(pairs)
        except PrunecError as error:
            judge.give_up(error.message)
            break
        seen.append(ours)
        if not judge.passes(inputs, ours, theirs, measured_here=True):
            break
    told = unprovable(seen) if len(seen) > 1 else []  # one batch alone repeats itself
    return judge.check("outputs, random", where), [*told, *judge.rough]


def compare_on_data(
    session: LoadedFile,
    module: nn.Module,
    example: tuple[Tensor, ...],
    data: TestSplit,
    bounds: Bounds,
) -> tuple[list[Check], Answers | None]:
    """Compare outputs, answers and what they are worth on the whole test split."""
    judge = _Judge(module, bounds)
    task = data.task
    samples, total, equal, tally = 0, 0, 0, Tally(task.classes)
    counts = torch.zeros(2, task.counted, dtype=torch.int64)
    batches, again = itertools.tee(data.test_batches(_batch_size(module, example)))
    pairs = _outputs(session, module, ((images,) for images, _ in again))
    for images, labels in batches:
        try:
            ours, theirs = next(pairs)
        except PrunecError as error:
            name = "outputs, test split"
            return [failed(name, 0.0, "no outputs", f"{error.message}.")], None
        judge.passes((images,), ours, theirs)
        a, b = top_answers(task, ours[0], theirs[0], labels.cpu())
        samples, total = samples + len(images), total + labels.numel()
        tally.add(images, labels.cpu(), a, b)
        equal += int(((a == b) & (b != task.classes)).sum())
        counts += torch.stack([task.counts(answer, labels.cpu()) for answer in (a, b)])
    ours_worth, theirs_worth = (task.score(row) for row in counts.tolist())
    answers = Answers(
        task, samples, total, equal, ours_worth, theirs_worth, tally.classes, tally.flips
    )
    outputs = judge.check("outputs, test split", "on the test split")
    return [outputs, *answer_checks(answers, bounds)], answers


class _Judge:
    """Holds the widest gap of all batches; measures rounding where it must be known."""

    def __init__(self, module: nn.Module, bounds: Bounds) -> None:
        self._rounding = Rounding(module)
        self._tolerance = bounds.tolerance
        self._noises: list[Noise] | None = None
        self._gap = Gap()
        self._rough: dict[int, str] = {}

    @property
    def rough(self) -> tuple[str, ...]:
        """A sentence for each output that rounding moves further than the tolerance allows."""
        return tuple(self._rough.values()) if self._gap.passed else ()

    def passes(
        self,
        inputs: tuple[Tensor, ...],
        ours: list[np.ndarray],
        theirs: list[np.ndarray],
        *,
        measured_here: bool = False,
    ) -> bool:
        """Say whether outputs are near enough, by what rounding did to a batch before.

        Where they are not, or ``measured_here``, rounding is measured on these very inputs.
        """
        reason = comparable(ours, theirs)
        if reason and self._tolerance is not None and not unlike(ours, theirs):
            theirs = decided(ours, theirs, self._rounding.undecided(inputs, ours))
            reason = comparable(ours, theirs)
        if reason or self._tolerance is None:
            found = untold(reason) if reason else Gap()
        elif self._noises is None or measured_here:
            found = self._measured(inputs, ours, theirs)
        else:
            found = self._judged(ours, theirs, self._noises, self._tolerance)
            if not found.passed and self._gap.passed:
                found = self._measured(inputs, ours, theirs)
        self._gap = farthest([self._gap, found])
        return found.passed

    def give_up(self, reason: str) -> None:
        """Note that nothing can be compared."""
        self._gap = untold(reason)

    def check(self, name: str, where: str) -> Check:
        """Return the verdict over all batches."""
        made = self._gap.numbers if self._tolerance is None else self._gap.check
        return made(name, where)

    def _measured(
        self, inputs: tuple[Tensor, ...], ours: list[np.ndarray], theirs: list[np.ndarray]
    ) -> Gap:
        assert self._tolerance is not None
        whole = any(
            not np.issubdtype(a.dtype, np.floating) and not np.array_equal(a, b)
            for a, b in zip(ours, theirs, strict=True)
        )
        self._noises = self._rounding.noise(inputs, ours, whole=whole)
        for number, (values, noise) in enumerate(zip(ours, self._noises, strict=True)):
            if text := amplified(values, noise, self._tolerance):
                self._rough[number] = f"output {number} {text}"
        return self._judged(ours, theirs, self._noises, self._tolerance)

    @staticmethod
    def _judged(
        ours: list[np.ndarray], theirs: list[np.ndarray], noises: list[Noise], tolerance: float
    ) -> Gap:
        pairs = zip(ours, theirs, noises, strict=True)
        return farthest([gap_of(a, b, noise, tolerance) for a, b, noise in pairs])


def _batch_size(module: nn.Module, example: tuple[Tensor, ...]) -> int:
    """How many images are compared at once: a class for every pixel makes large outputs."""
    values = sum(x.size for x in run(module, example)) // len(example[0])
    return max(1, min(_TEST_BATCH, _TEST_VALUES // max(values, 1)))


def _outputs(
    session: LoadedFile, module: nn.Module, batches: Iterable[tuple[Tensor, ...]]
) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Yield torch's outputs and the file's of every batch; the runner may take all at once."""
    given, again = itertools.tee(batches)
    found = session.run([x.cpu().numpy() for x in inputs] for inputs in given)
    for inputs in again:
        theirs = next(found, None)
        if theirs is None:
            raise PrunecError("the runner ended before the last batch")
        yield run(module, inputs), theirs
