"""Answers of two engines on labelled samples: their agreement and their quality."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prunec.deploy.checks.check import Check, at_least, failed
from prunec.deploy.checks.samples import Flip
from prunec.tasks.quality import Quality
from prunec.tasks.task import Score, Task


@dataclass(frozen=True)
class Bounds:
    """Limits on the distance between a file's answers and the network's.

    Attributes:
        tolerance: largest difference of outputs as a share of their largest value, even if rounding
            explains more; None for forms that change numbers, which it does not judge.
        agreement: smallest share of equal answers.
        drop: largest allowed loss of accuracy or mIoU, in percentage points.
        rise: largest allowed gain, in percentage points.
    """

    tolerance: float | None
    agreement: float
    drop: float
    rise: float


@dataclass(frozen=True)
class Answers:
    """Answers of both engines on the test split.

    Attributes:
        task: task of the network.
        samples: number of images.
        total: number of answers: one per image, or one per pixel.
        equal: number of equal answers.
        torch: quality of the network's answers.
        file: quality of the file's answers, under its runner.
        classes: per class (samples, right answers of the network, right answers of the file).
        flips: first samples that the file answers differently.
    """

    task: Task
    samples: int
    total: int
    equal: int
    torch: Score
    file: Score
    classes: tuple[tuple[int, int, int], ...] = ()
    flips: tuple[Flip, ...] = ()

    @property
    def agreement(self) -> float:
        """Share of equal answers."""
        return self.equal / self.total


def answer_checks(answers: Answers, bounds: Bounds) -> list[Check]:
    """Return the checks that both engines give equal answers of equal quality."""
    task, different = answers.task, answers.total - answers.equal
    wrong = f"{different:,} of {answers.total:,} {task.answer}s get another top-1 answer."
    agreed = at_least(task.agreement, bounds.agreement, answers.agreement, wrong)
    return [agreed, *(_quality(quality, answers, bounds) for quality in task.qualities)]


def _quality(quality: Quality, answers: Answers, bounds: Bounds) -> Check:
    """Return the check that both engines' figures lie within the bounds.

    For an exact form, the bounds in points are the allowed share of different answers in percent:
    an accuracy changes by at most that share. An mIoU could change by more if a class is rare; that
    deserves a look, and fails.
    """
    name = f"{quality.name}, percent"
    ours, theirs = (score.figures[quality.key] for score in (answers.torch, answers.file))
    # 1e-9 points: rounding of the difference of two percentages.
    if ours - theirs <= bounds.drop + 1e-9 and theirs - ours <= bounds.rise + 1e-9:
        return Check(name, ours, theirs, bounds.drop, True)
    message = (
        f"torch has an {quality.name} of {ours:.4f} % on {answers.samples:,} test samples, the "
        f"file {theirs:.4f} %."
    )
    return failed(name, ours, theirs, message)


def top_answers(
    task: Task, ours: np.ndarray, theirs: np.ndarray, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Return torch's answers and the file's, ``task.classes`` where there is no usable answer."""
    none = torch.full(labels.shape, task.classes, dtype=torch.int64)
    if ours.shape != theirs.shape or ours.ndim != labels.ndim + 1:
        return none, none
    # argmax of NaN is arbitrary.
    usable = torch.from_numpy(np.isfinite(ours).all(1) & np.isfinite(theirs).all(1))
    a, b = (torch.from_numpy(values.argmax(1)) for values in (ours, theirs))
    return a, torch.where(usable, b, none)
