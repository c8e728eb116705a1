"""What two engines answer on labelled samples, and how alike and how right their answers are."""

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
    """How far a file's answers may lie from the network's.

    Attributes:
        tolerance: largest difference of outputs, as a share of their largest value, however much
            rounding explains; None where it does not judge a form that changes numbers.
        agreement: smallest share of equal answers.
        drop: by how many points the accuracy, or the mIoU, may be lower.
        rise: by how many points it may be higher.
    """

    tolerance: float | None
    agreement: float
    drop: float
    rise: float


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
        classes: of each class its samples, and how many the network and the file answer right.
        flips: the first samples that the file answers otherwise.
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
    """Return the checks that both engines answer alike, and as well."""
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


def top_answers(
    task: Task, ours: np.ndarray, theirs: np.ndarray, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Return torch's answers and the file's, ``task.classes`` where one has none of use."""
    none = torch.full(labels.shape, task.classes, dtype=torch.int64)
    if ours.shape != theirs.shape or ours.ndim != labels.ndim + 1:
        return none, none
    usable = torch.from_numpy(np.isfinite(ours).all(1) & np.isfinite(theirs).all(1))
    a, b = (torch.from_numpy(values.argmax(1)) for values in (ours, theirs))
    return a, torch.where(usable, b, none)
