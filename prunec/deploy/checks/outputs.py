"""Compares what torch and onnxruntime compute, on random inputs and on the test split."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from prunec.deploy.checks.report import Check, at_least, failed
from prunec.deploy.runner import LoadedFile
from prunec.errors import PrunecError
from prunec.tasks.quality import Quality
from prunec.tasks.task import Score, Task

if TYPE_CHECKING:
    from prunec.batches.data import Data

_SIZES = (1, 2, 5)
_TEST_BATCH = 100
_TEST_VALUES = 2**26  # of outputs that a batch has at most: a quarter of a gigabyte
_SEED = 20


@dataclass(frozen=True)
class Bounds:
    """How far a file's answers may lie from the network's.

    Attributes:
        tolerance: largest absolute difference of outputs; None where it does not judge a form that
            changes numbers.
        agreement: smallest share of equal answers.
        drop: by how many points the accuracy, or the mIoU, may be lower.
        rise: by how many points it may be higher.
    """

    tolerance: float | None
    agreement: float
    drop: float
    rise: float


@dataclass(frozen=True)
class Gap:
    """How far outputs lie apart.

    Attributes:
        worst: the largest absolute difference; NaN where it cannot be told.
        size: the largest absolute value of torch's outputs.
        reason: why it cannot be told; empty where it can.
    """

    worst: float = 0.0
    size: float = 0.0
    reason: str = ""

    def and_also(self, other: Gap) -> Gap:
        """Return the gap of both outputs' together."""
        worst = float(np.maximum(self.worst, other.worst))  # NaN where one is
        return Gap(worst, max(self.size, other.size), self.reason or other.reason)

    def check(self, name: str, tolerance: float | None, where: str) -> Check:
        """Return whether they are near enough; without a tolerance, whether both are numbers."""
        if tolerance is None:
            finite = self.worst == self.worst
            reason = "" if finite else f"{self.reason} {where}."
            return Check(name, "numbers", self.worst, None, finite, reason)
        if self.worst <= tolerance:
            return Check(name, 0.0, self.worst, tolerance, True)
        told = f"outputs of up to {self.size:.3g} differ by {self.worst:.3g}"
        return Check(name, 0.0, self.worst, tolerance, False, f"{self.reason or told} {where}.")


@dataclass(frozen=True)
class Answers:
    """What both engines answered on the test split.

    Attributes:
        task: what was asked.
        samples: images.
        total: answers: one an image, or one a pixel.
        equal: how many of them are the same.
        torch: what the network's are worth.
        file: what the file's are, under onnxruntime.
    """

    task: Task
    samples: int
    total: int
    equal: int
    torch: Score
    file: Score

    @property
    def agreement(self) -> float:
        """Share of equal answers."""
        return self.equal / self.total


def compare_random(
    session: LoadedFile,
    module: nn.Module,
    example: tuple[Tensor, ...],
    *,
    batches: int,
    bounds: Bounds,
) -> Check:
    """Compare all outputs on ``batches`` random batches of different sizes, 1 and 2 first."""
    gap, where = Gap(), ""
    limit = float("inf") if bounds.tolerance is None else bounds.tolerance
    given = list(_random_batches(example, batches))
    pairs = _outputs(session, module, given)
    for inputs in given:
        gap, where = gap.and_also(_next_gap(pairs)), f"of {len(inputs[0])}"
        if not gap.worst <= limit:
            break
    return gap.check("outputs, random", bounds.tolerance, f"on a random batch {where}")


def compare_on_data(
    session: LoadedFile,
    module: nn.Module,
    example: tuple[Tensor, ...],
    data: Data,
    bounds: Bounds,
) -> tuple[list[Check], Answers | None]:
    """Compare outputs, answers and what they are worth on the whole test split."""
    apart = Gap()
    task = data.task
    samples, total, equal = 0, 0, 0
    counts = torch.zeros(2, task.counted, dtype=torch.int64)
    batches, again = itertools.tee(data.test_batches(_batch_size(module, example)))
    pairs = _outputs(session, module, ((images,) for images, _ in again))
    for images, labels in batches:
        try:
            ours, theirs = next(pairs)
        except PrunecError as error:
            name = "outputs, test split"
            return [failed(name, 0.0, "no outputs", f"{error.message}.")], None
        apart = apart.and_also(_gap(ours, theirs))
        a, b = _answers(task, ours[0], theirs[0], labels.cpu())
        samples, total = samples + len(images), total + labels.numel()
        equal += int(((a == b) & (b != task.classes)).sum())
        counts += torch.stack([task.counts(answer, labels.cpu()) for answer in (a, b)])
    scores = [task.score(row) for row in counts.tolist()]
    answers = Answers(task, samples, total, equal, *scores)
    outputs = apart.check("outputs, test split", bounds.tolerance, "on the test split")
    return [outputs, *_answer_checks(answers, bounds)], answers


def _batch_size(module: nn.Module, example: tuple[Tensor, ...]) -> int:
    """How many images are compared at once: a class for every pixel makes large outputs."""
    with torch.inference_mode():
        values = sum(x.numel() for x in _flat(module(*(x.clone() for x in example)))) // len(
            example[0]
        )
    return max(1, min(_TEST_BATCH, _TEST_VALUES // max(values, 1)))


def _answer_checks(answers: Answers, bounds: Bounds) -> list[Check]:
    task, different = answers.task, answers.total - answers.equal
    wrong = f"{different:,} of {answers.total:,} {task.answer}s get another top-1 answer."
    agreed = at_least(task.agreement, bounds.agreement, answers.agreement, wrong)
    return [agreed, *(_quality(quality, answers, bounds) for quality in task.qualities)]


def _quality(quality: Quality, answers: Answers, bounds: Bounds) -> Check:
    """Both engines' figure, as far apart as the bounds allow.

    Of an exact form, as many points as answers may differ, in percent: an accuracy moves by the
    share of other answers at most. An mIoU could move by more, where a class is rare; that would be
    worth a look, and does not pass.
    """
    name = f"{quality.name}, percent"
    ours, theirs = (score.figures[quality.key] for score in (answers.torch, answers.file))
    if ours - theirs <= bounds.drop + 1e-9 and theirs - ours <= bounds.rise + 1e-9:
        return Check(name, ours, theirs, bounds.drop, True)
    message = (
        f"torch has an {quality.name} of {ours:.4f} % on {answers.samples:,} test samples, the "
        f"file {theirs:.4f} %."
    )
    return failed(name, ours, theirs, message)


def _answers(
    task: Task, ours: np.ndarray, theirs: np.ndarray, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Return torch's answers and the file's, ``task.classes`` where one has none of use."""
    none = torch.full(labels.shape, task.classes, dtype=torch.int64)
    if ours.shape != theirs.shape or ours.ndim != labels.ndim + 1:
        return none, none
    usable = torch.from_numpy(np.isfinite(ours).all(1) & np.isfinite(theirs).all(1))
    a, b = (torch.from_numpy(values.argmax(1)) for values in (ours, theirs))
    return a, torch.where(usable, b, none)


def _outputs(
    session: LoadedFile, module: nn.Module, batches: Iterable[tuple[Tensor, ...]]
) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Yield torch's outputs and the file's of every batch; the runner may take all at once."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    given, again = itertools.tee(batches)
    found = session.run([x.cpu().numpy() for x in inputs] for inputs in given)
    for inputs in again:
        theirs = next(found, None)
        if theirs is None:
            raise PrunecError("the runner ended before the last batch")
        with torch.inference_mode():
            ours = _flat(module(*(x.to(device, copy=True) for x in inputs)))
        yield [x.cpu().numpy() for x in ours], theirs


def _next_gap(pairs: Iterator[tuple[list[np.ndarray], list[np.ndarray]]]) -> Gap:
    try:
        ours, theirs = next(pairs)
    except PrunecError as error:
        return Gap(float("nan"), reason=error.message)
    return _gap(ours, theirs)


def _flat(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    items: Sequence[Any] = list(output.values()) if isinstance(output, Mapping) else output
    return [tensor for item in items for tensor in _flat(item)]


def _gap(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> Gap:
    shapes, given = [a.shape for a in ours], [b.shape for b in theirs]
    if shapes != given:
        reason = f"the file's outputs have shapes {given}, torch's {shapes}"
        return Gap(float("nan"), reason=reason)
    for who, values in (("torch's", ours), ("the file's", theirs)):
        if not all(np.isfinite(value).all() for value in values):
            return Gap(float("nan"), reason=f"{who} outputs are not finite (NaN or infinite)")
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.size]
    worst = max((float(np.abs(a - b).max()) for a, b in pairs), default=0.0)
    return Gap(worst, max((float(np.abs(a).max()) for a, _ in pairs), default=0.0))


def _random_batches(example: tuple[Tensor, ...], count: int) -> Iterator[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(_SEED)
    for index in range(count):
        size = _SIZES[index] if index < len(_SIZES) else 1 + index
        yield tuple(_random(x.cpu(), size, generator) for x in example)


def _random(x: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return normal numbers; integers (indices, tokens) are drawn from those of the example."""
    if not x.dim():  # a number beside the batch
        return x.clone()
    if x.is_floating_point():
        return torch.randn((size, *x.shape[1:]), generator=generator, dtype=x.dtype)
    return x[torch.randint(len(x), (size,), generator=generator)]
