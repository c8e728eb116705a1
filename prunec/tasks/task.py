"""Tasks: the loss of a network, the counts of its predictions, and the metrics from those counts.

The data set determines the task. Training, evaluation and verification use it, so that no other
module depends on whether there is one prediction per image or per pixel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from prunec.errors import DataError
from prunec.processes import ALONE, Processes
from prunec.tasks.quality import ACCURACY, Quality


class Score(Protocol):
    """Metrics computed from accumulated counts."""

    @property
    def percent(self) -> float:
        """The decisive metric in percent."""

    @property
    def figures(self) -> Mapping[str, float]:
        """Key of a `Quality` → its value in percent, for all metrics."""


@dataclass(frozen=True)
class Outputs:
    """Outputs of a network: logits [N, classes, …], and those of an auxiliary head."""

    logits: Tensor
    auxiliary: Tensor | None = None


@dataclass(frozen=True)
class Task(ABC):
    """Base class of tasks.

    Attributes:
        classes: number of classes.
        qualities: metrics of a score, the decisive one first.
        answer: what one prediction is for: ``test sample`` or ``pixel``.
        agreement: name of the share of equal predictions of two engines.
        counted: number of accumulated counts.
    """

    classes: int

    qualities: ClassVar[tuple[Quality, ...]]
    answer: ClassVar[str]
    agreement: ClassVar[str]

    @property
    @abstractmethod
    def counted(self) -> int:
        """Number of values that :meth:`counts` returns."""

    @abstractmethod
    def read(self, outputs: object, images: Tensor) -> Outputs:
        """Convert the return value of a network for ``images``.

        Raises:
            DataError: its type or shape does not fit the task.
        """

    @abstractmethod
    def cross_entropy(
        self, logits: Tensor, labels: Tensor, smoothing: float, processes: Processes = ALONE
    ) -> Tensor:
        """Return the mean cross entropy over all labelled predictions.

        The mean over ``processes`` of their return values is the mean over all predictions.
        """

    @abstractmethod
    def divergence(
        self, student: Tensor, teacher: Tensor, labels: Tensor, processes: Processes = ALONE
    ) -> Tensor:
        """Return KL(teacher ‖ student) of log-probabilities, averaged as :meth:`cross_entropy`."""

    @abstractmethod
    def counts(self, answers: Tensor, labels: Tensor) -> Tensor:
        """Return counts to sum over batches and processes, int64 [counted], without a device sync.

        Args:
            answers: predicted classes, int64; ``classes`` for no prediction.
            labels: labels of the data, int64.
        """

    @abstractmethod
    def score(self, counts: Sequence[float]) -> Score:
        """Return the metrics of summed counts."""

    def by_class(self, answers: Tensor, labels: Tensor) -> Tensor:
        """Return (samples, right answers) per class, int64 [classes, 2], without a device sync.

        Empty, [0, 2], if a sample has more than one label.
        """
        return labels.new_zeros(0, 2)


@dataclass(frozen=True)
class Accuracy:
    """Accuracy: correctly predicted images, and all images."""

    correct: float
    total: float

    @property
    def percent(self) -> float:
        """Share of correct predictions in percent."""
        return 100 * self.correct / self.total if self.total else 0.0

    @property
    def figures(self) -> Mapping[str, float]:
        """See :class:`Score`."""
        return {ACCURACY.key: self.percent}


@dataclass(frozen=True)
class Classification(Task):
    """One label per image: logits [N, classes], labels [N]."""

    qualities: ClassVar[tuple[Quality, ...]] = (ACCURACY,)
    answer: ClassVar[str] = "test sample"
    agreement: ClassVar[str] = "top-1 agreement"

    @property
    def counted(self) -> int:
        """Two counts: correct predictions, images."""
        return 2

    def read(self, outputs: object, images: Tensor) -> Outputs:
        """See :meth:`Task.read`."""
        if not isinstance(outputs, Tensor):
            raise DataError(
                f"the network returns {type(outputs).__name__} in training, one tensor is needed",
                remedy="Switch its extra outputs off: model.options = { aux_logits = false } for "
                "googlenet and inception_v3; let a network of your own return one tensor "
                f"(N, {self.classes}) in training, too.",
            )
        if outputs.ndim != 2 or outputs.shape[1] != self.classes:
            raise DataError(
                f"the network returns {tuple(outputs.shape)}, the data has {self.classes} "
                f"classes: (N, {self.classes}) is needed",
                remedy="Let the network take num_classes, which comes from the data.",
            )
        return Outputs(outputs)

    def cross_entropy(
        self, logits: Tensor, labels: Tensor, smoothing: float, processes: Processes = ALONE
    ) -> Tensor:
        """See :meth:`Task.cross_entropy`; labels may be mixed ones [N, classes]."""
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)

    def divergence(
        self, student: Tensor, teacher: Tensor, labels: Tensor, processes: Processes = ALONE
    ) -> Tensor:
        """See :meth:`Task.divergence`."""
        return F.kl_div(student, teacher, reduction="batchmean", log_target=True)

    def counts(self, answers: Tensor, labels: Tensor) -> Tensor:
        """See :meth:`Task.counts`."""
        right = (answers == labels).sum()
        return torch.stack([right, torch.full_like(right, len(labels))])

    def score(self, counts: Sequence[float]) -> Accuracy:
        """See :meth:`Task.score`."""
        correct, total = counts
        return Accuracy(correct, total)

    def by_class(self, answers: Tensor, labels: Tensor) -> Tensor:
        """See :meth:`Task.by_class`."""
        both = torch.stack([torch.ones_like(labels), (answers == labels).long()], 1)
        # Labels of no class go to one more row, dropped at the end: selecting would be a sync.
        place = torch.where((labels >= 0) & (labels < self.classes), labels, self.classes)
        return labels.new_zeros(self.classes + 1, 2).index_add_(0, place, both)[:-1]
