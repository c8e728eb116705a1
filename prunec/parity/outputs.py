"""Compares what torch and onnxruntime compute, on random inputs and on the test split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from prunec.errors import PrunecError
from prunec.parity.report import Check, at_least, failed
from prunec.runtime import Session

if TYPE_CHECKING:
    from prunec.training.data import Data

_SIZES = (1, 2, 5)
_TEST_BATCH = 100
_SEED = 20


@dataclass(frozen=True)
class Answers:
    """What both engines answered on the test split, in samples."""

    total: int
    torch_correct: int
    file_correct: int
    equal: int

    @property
    def torch_accuracy(self) -> float:
        """Top-1 accuracy of the network, in percent."""
        return 100 * self.torch_correct / self.total

    @property
    def file_accuracy(self) -> float:
        """Top-1 accuracy of the file under onnxruntime, in percent."""
        return 100 * self.file_correct / self.total

    @property
    def agreement(self) -> float:
        """Share of samples with the same top-1 answer."""
        return self.equal / self.total


def compare_random(
    session: Session,
    module: nn.Module,
    example: tuple[Tensor, ...],
    *,
    batches: int,
    tolerance: float,
) -> Check:
    """Compare all outputs on ``batches`` random batches of different sizes, 1 and 2 first."""
    name = "outputs, random"
    worst = 0.0
    for inputs in _random_batches(example, batches):
        found, wrong = _compare(session, module, inputs)
        worst = _worse(worst, found)
        if not worst <= tolerance:
            where = f"on a random batch of {len(inputs[0])}"
            return _differs(name, worst, tolerance, where, wrong)
    return Check(name, 0.0, worst, tolerance, True)


def compare_on_data(
    session: Session, module: nn.Module, data: Data, *, tolerance: float, agreement: float
) -> tuple[list[Check], Answers | None]:
    """Compare outputs, top-1 answers and accuracy on the whole test split."""
    worst, reason = 0.0, ""
    counts = np.zeros(4, dtype=np.int64)
    for images, labels in data.test_batches(_TEST_BATCH):
        try:
            ours, theirs = _outputs(session, module, (images,))
        except PrunecError as error:
            name = "outputs, test split"
            return [failed(name, 0.0, "no outputs", f"{error.message}.")], None
        gap, wrong = _gap(ours, theirs)
        worst, reason = _worse(worst, gap), reason or wrong
        counts += _answers(ours[0], theirs[0], labels.cpu().numpy())
    answers = Answers(*map(int, counts))
    return _data_checks(worst, reason, answers, tolerance, agreement), answers


def _data_checks(
    worst: float, reason: str, answers: Answers, tolerance: float, agreement: float
) -> list[Check]:
    name = "outputs, test split"
    outputs = Check(name, 0.0, worst, tolerance, True)
    if not worst <= tolerance:
        outputs = _differs(name, worst, tolerance, "on the test split", reason)
    different = answers.total - answers.equal
    allowed = 100 * (1 - agreement)
    gap = abs(answers.file_accuracy - answers.torch_accuracy)
    accuracy = Check(
        "accuracy, percent",
        answers.torch_accuracy,
        answers.file_accuracy,
        allowed,
        # A share of equal answers that is allowed moves the accuracy by that share at most.
        gap <= allowed + 1e-9,
        "",
    )
    if not accuracy.passed:
        message = (
            f"torch answers {answers.torch_correct:,} of {answers.total:,} test samples right, "
            f"the file {answers.file_correct:,}."
        )
        accuracy = failed(accuracy.name, accuracy.expected, accuracy.found, message)
    wrong = f"{different:,} of {answers.total:,} test samples get another top-1 answer."
    return [outputs, at_least("top-1 agreement", agreement, answers.agreement, wrong), accuracy]


def _answers(ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return samples, torch's right answers, the file's right answers, equal answers."""
    if ours.shape != theirs.shape or ours.ndim != 2:
        return np.array([len(labels), 0, 0, 0])
    a, b = ours.argmax(1), theirs.argmax(1)
    usable = np.isfinite(ours).all(1) & np.isfinite(theirs).all(1)
    right = (a == labels).sum(), (b == labels)[usable].sum()
    return np.array([len(labels), *right, (a == b)[usable].sum()])


def _compare(session: Session, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[float, str]:
    try:
        ours, theirs = _outputs(session, module, inputs)
    except PrunecError as error:
        return float("nan"), error.message
    return _gap(ours, theirs)


def _outputs(
    session: Session, module: nn.Module, inputs: tuple[Tensor, ...]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        ours = _flat(module(*(x.to(device) for x in inputs)))
    theirs = session.run([x.cpu().numpy() for x in inputs])
    return [x.cpu().numpy() for x in ours], theirs


def _flat(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    items: Sequence[Any] = list(output.values()) if isinstance(output, Mapping) else output
    return [tensor for item in items for tensor in _flat(item)]


def _gap(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> tuple[float, str]:
    """Return the largest absolute difference, NaN where one cannot be told, and why."""
    shapes, given = [a.shape for a in ours], [b.shape for b in theirs]
    if shapes != given:
        return float("nan"), f"the file's outputs have shapes {given}, torch's {shapes}"
    for who, values in (("torch's", ours), ("the file's", theirs)):
        if not all(np.isfinite(value).all() for value in values):
            return float("nan"), f"{who} outputs are not finite (NaN or infinite)"
    pairs = zip(ours, theirs, strict=True)
    return max((float(np.abs(a - b).max()) for a, b in pairs if a.size), default=0.0), ""


def _worse(a: float, b: float) -> float:
    return a if np.isnan(a) or a >= b else b


def _differs(name: str, worst: float, tolerance: float, where: str, reason: str) -> Check:
    text = reason or f"outputs differ by {worst:.3g}"
    return Check(name, 0.0, worst, tolerance, False, f"{text} {where}.")


def _random_batches(example: tuple[Tensor, ...], count: int) -> Iterator[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(_SEED)
    for index in range(count):
        size = _SIZES[index] if index < len(_SIZES) else 1 + index
        yield tuple(_random(x.cpu(), size, generator) for x in example)


def _random(x: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return normal numbers; integers (indices, tokens) are drawn from those of the example."""
    if x.is_floating_point():
        return torch.randn((size, *x.shape[1:]), generator=generator, dtype=x.dtype)
    return x[torch.randint(len(x), (size,), generator=generator)]
