"""What is asked of a network: its loss, what is counted of its answers, and what that is worth.

The data set decides the task; training, evaluation and the proof of a file ask it, and nobody else
knows how many answers there are to an image.
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
    """What counts are worth."""

    @property
    def percent(self) -> float:
        """The figure that decides, in percent."""

    @property
    def figures(self) -> Mapping[str, float]:
        """Every figure by the key of its `Quality`, in percent."""


@dataclass(frozen=True)
class Outputs:
    """What a network answers: logits [N, classes, …], and those of a head that only trains."""

    logits: Tensor
    auxiliary: Tensor | None = None


@dataclass(frozen=True)
class Task(ABC):
    """A kind of answer.

    Attributes:
        classes: how many there are.
        qualities: the figures of a score, the one that decides first.
        answer: what one answer is about.
        agreement: what the share of equal answers of two engines is called.
        counted: how many numbers are counted.
    """

    classes: int

    qualities: ClassVar[tuple[Quality, ...]]
    answer: ClassVar[str]
    agreement: ClassVar[str]

    @property
    @abstractmethod
    def counted(self) -> int:
        """How many numbers :meth:`counts` returns."""

    @abstractmethod
    def read(self, outputs: object, images: Tensor) -> Outputs:
        """Return what a network returned for ``images``.

        Raises:
            DataError: it is nothing that this data asks for.
        """

    @abstractmethod
    def cross_entropy(
        self, logits: Tensor, labels: Tensor, smoothing: float, processes: Processes = ALONE
    ) -> Tensor:
        """Return the mean over all answers that have a label.

        The mean over ``processes`` of what each returns is the mean over the answers of all.
        """

    @abstractmethod
    def divergence(
        self, found: Tensor, wanted: Tensor, labels: Tensor, processes: Processes = ALONE
    ) -> Tensor:
        """Return KL(wanted ‖ found) of log-probabilities, a mean as of :meth:`cross_entropy`."""

    @abstractmethod
    def counts(self, answers: Tensor, labels: Tensor) -> Tensor:
        """Return what is summed over batches and processes, int64 [counted], without waiting.

        Args:
            answers: int64, a class each; ``classes`` where there is no answer.
            labels: int64, as the data gives them.
        """

    @abstractmethod
    def score(self, counts: Sequence[float]) -> Score:
        """Return what summed counts are worth."""


@dataclass(frozen=True)
class Accuracy:
    """How many of how many images got their label as the first answer."""

    correct: float
    total: float

    @property
    def percent(self) -> float:
        """The share of correct answers, in percent."""
        return 100 * self.correct / self.total if self.total else 0.0

    @property
    def figures(self) -> Mapping[str, float]:
        """See :class:`Score`."""
        return {ACCURACY.key: self.percent}


@dataclass(frozen=True)
class Classification(Task):
    """One label an image: logits [N, classes], labels [N]."""

    qualities: ClassVar[tuple[Quality, ...]] = (ACCURACY,)
    answer: ClassVar[str] = "test sample"
    agreement: ClassVar[str] = "top-1 agreement"

    @property
    def counted(self) -> int:
        """Right answers, images."""
        return 2

    def read(self, outputs: object, images: Tensor) -> Outputs:
        """See :meth:`Task.read`."""
        if not isinstance(outputs, Tensor):
            raise DataError(
                f"the network returns {type(outputs).__name__} in training, one tensor is wanted",
                remedy="Switch its extra outputs off: model.options = { aux_logits = false } for "
                "googlenet and inception_v3; let a network of your own return one tensor "
                f"(N, {self.classes}) in training too.",
            )
        if outputs.ndim != 2 or outputs.shape[1] != self.classes:
            raise DataError(
                f"the network returns {tuple(outputs.shape)}, the data has {self.classes} "
                f"classes: (N, {self.classes}) is wanted",
                remedy="Let the network take num_classes, which the data gives.",
            )
        return Outputs(outputs)

    def cross_entropy(
        self, logits: Tensor, labels: Tensor, smoothing: float, processes: Processes = ALONE
    ) -> Tensor:
        """See :meth:`Task.cross_entropy`; labels may be mixed ones [N, classes]."""
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)

    def divergence(
        self, found: Tensor, wanted: Tensor, labels: Tensor, processes: Processes = ALONE
    ) -> Tensor:
        """See :meth:`Task.divergence`."""
        return F.kl_div(found, wanted, reduction="batchmean", log_target=True)

    def counts(self, answers: Tensor, labels: Tensor) -> Tensor:
        """See :meth:`Task.counts`."""
        right = (answers == labels).sum()
        return torch.stack([right, torch.full_like(right, len(labels))])

    def score(self, counts: Sequence[float]) -> Accuracy:
        """See :meth:`Task.score`."""
        correct, total = counts
        return Accuracy(correct, total)
