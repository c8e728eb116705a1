"""Comparison of the outputs of torch and a runner, on random inputs and on the test split."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from prunec.deploy.checks.answers import Answers, Bounds, answer_checks, top_answers
from prunec.deploy.checks.check import Check, failed
from prunec.deploy.checks.gaps import (
    Gap,
    amplified,
    comparable,
    decided,
    farthest,
    gap_of,
    incomparable,
    unlike,
)
from prunec.deploy.checks.proving import unprovable
from prunec.deploy.checks.random_inputs import Range, random_batches
from prunec.deploy.checks.reference import Reference
from prunec.deploy.checks.rounding import Noise
from prunec.deploy.checks.samples import Tally
from prunec.deploy.runner import LoadedFile, Runner
from prunec.errors import PrunecError
from prunec.recipe import VerifySpec
from prunec.tasks.task import Task

_TEST_BATCH = 32  # images per batch of the test split, if outputs are small
_TEST_VALUES = 2**26  # most output values per batch: 256 MiB of float32


class TestSplit(Protocol):
    """Labelled samples for both engines."""

    @property
    def task(self) -> Task:
        """Task of the network."""

    def test_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs [N, …] and int64 labels, always in the same order."""


def compare_outputs(
    path: Path,
    reference: Reference,
    example: tuple[Tensor, ...],
    runner: Runner,
    spec: VerifySpec,
    bounds: Bounds,
    data: TestSplit | None,
) -> tuple[list[Check], Answers | None, list[str]]:
    """Run a file beside the network, on random inputs and, if there is one, the test split.

    Returns:
        The checks, the answers on the test split, and remarks on outputs that prove little.
    """
    try:
        loaded = runner.open(path)
    except PrunecError as error:
        return [failed("outputs, random", 0.0, "no outputs", f"{error.message}.")], None, []
    random, remarks = compare_random(
        loaded,
        reference,
        example,
        batches=spec.random_batches,
        bounds=bounds,
        declared=spec.input_range,
    )
    if data is None:
        return [random], None, remarks
    on_data, answers = compare_on_data(loaded, reference, example, data, bounds)
    return [random, *on_data], answers, remarks


def compare_random(
    session: LoadedFile,
    reference: Reference,
    example: tuple[Tensor, ...],
    *,
    batches: int,
    bounds: Bounds,
    declared: Range | None = None,
) -> tuple[Check, list[str]]:
    """Compare all outputs on ``batches`` random batches of different sizes, 1 and 2 first.

    Returns:
        The check, and remarks on outputs that prove little: constant or not finite ones.
    """
    judge, where = _Judge(reference, bounds), ""
    seen: list[list[np.ndarray]] = []
    given = list(random_batches(example, batches, declared))
    pairs = _outputs(session, reference, given)
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
    remarks = unprovable(seen) if len(seen) > 1 else []  # one batch cannot show a constant
    return judge.check("outputs, random", where), [*remarks, *judge.rough]


def compare_on_data(
    session: LoadedFile,
    reference: Reference,
    example: tuple[Tensor, ...],
    data: TestSplit,
    bounds: Bounds,
) -> tuple[list[Check], Answers | None]:
    """Compare outputs, answers and their quality on the whole test split."""
    judge = _Judge(reference, bounds)
    task = data.task
    samples, total, equal, tally = 0, 0, 0, Tally(task.classes)
    counts = torch.zeros(2, task.counted, dtype=torch.int64)
    # Labels are read beside the outputs, which a runner may compute for several batches at once.
    batches, again = itertools.tee(data.test_batches(_batch_size(reference, example)))
    pairs = _outputs(session, reference, ((images,) for images, _ in again))
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
    torch_score, file_score = (task.score(row) for row in counts.tolist())
    answers = Answers(
        task, samples, total, equal, torch_score, file_score, tally.classes, tally.flips
    )
    outputs = judge.check("outputs, test split", "on the test split")
    return [outputs, *answer_checks(answers, bounds)], answers


class _Judge:
    """Accumulator of the widest gap over all batches; measures rounding when it is needed."""

    def __init__(self, reference: Reference, bounds: Bounds) -> None:
        self._reference = reference
        self._tolerance = bounds.tolerance
        self._noises: list[Noise] | None = None
        self._gap = Gap()
        self._rough: dict[int, str] = {}

    @property
    def rough(self) -> tuple[str, ...]:
        """One sentence per output that rounding moves further than the tolerance allows."""
        return tuple(self._rough.values()) if self._gap.passed else ()

    def passes(
        self,
        inputs: tuple[Tensor, ...],
        ours: list[np.ndarray],
        theirs: list[np.ndarray],
        *,
        measured_here: bool = False,
    ) -> bool:
        """Return whether outputs are close enough, by the rounding measured on an earlier batch.

        If they are not, or with ``measured_here``, rounding is measured on these inputs.
        """
        reason = comparable(ours, theirs)
        if reason and self._tolerance is not None and not unlike(ours, theirs):
            theirs = decided(ours, theirs, self._reference.undecided(inputs, ours))
            reason = comparable(ours, theirs)
        if reason or self._tolerance is None:
            gap = incomparable(reason) if reason else Gap()
        elif self._noises is None or measured_here:
            gap = self._measured(inputs, ours, theirs)
        else:
            gap = self._judged(ours, theirs, self._noises, self._tolerance)
            # Rounding of another batch may explain less; measure on this one before a failure.
            if not gap.passed and self._gap.passed:
                gap = self._measured(inputs, ours, theirs)
        self._gap = farthest([self._gap, gap])
        return gap.passed

    def give_up(self, reason: str) -> None:
        """Record that outputs cannot be compared."""
        self._gap = incomparable(reason)

    def check(self, name: str, where: str) -> Check:
        """Return the verdict over all batches."""
        made = self._gap.numbers if self._tolerance is None else self._gap.check
        return made(name, where)

    def _measured(
        self, inputs: tuple[Tensor, ...], ours: list[np.ndarray], theirs: list[np.ndarray]
    ) -> Gap:
        # Two more runs say which integers rounding decides: only where some differ.
        whole = any(
            not np.issubdtype(a.dtype, np.floating) and not np.array_equal(a, b)
            for a, b in zip(ours, theirs, strict=True)
        )
        # After a first batch, which tells how rough outputs are, moved weights run where needed.
        if self._noises is not None and not whole:
            gap = self._judged_by(inputs, ours, theirs, moved=False)
            if gap.passed:
                return gap
        return self._judged_by(inputs, ours, theirs, whole=whole)

    def _judged_by(
        self,
        inputs: tuple[Tensor, ...],
        ours: list[np.ndarray],
        theirs: list[np.ndarray],
        **measured: bool,
    ) -> Gap:
        """Judge by the rounding measured on these inputs, and remember it."""
        assert self._tolerance is not None
        self._noises = self._reference.noise(inputs, ours, **measured)
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


def _batch_size(reference: Reference, example: tuple[Tensor, ...]) -> int:
    """Return the number of images per batch: outputs with one class per pixel are large."""
    values = sum(x.size for x in reference.outputs(example)) // len(example[0])
    return max(1, min(_TEST_BATCH, _TEST_VALUES // max(values, 1)))


def _outputs(
    session: LoadedFile, reference: Reference, batches: Iterable[tuple[Tensor, ...]]
) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Yield torch's outputs and the file's for every batch; the runner may consume all batches
    first.
    """
    given, again = itertools.tee(batches)
    file_outputs = session.run([x.cpu().numpy() for x in inputs] for inputs in given)
    for inputs in again:
        theirs = next(file_outputs, None)
        if theirs is None:
            raise PrunecError("the runner ended before the last batch")
        yield reference.outputs(inputs), theirs
