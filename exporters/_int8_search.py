"""Search of an integer file within its bounds: ranges of activations first, then layers in float.

The forms with integer kernels differ in their files and runtimes. They share this search, the
ranges that it tries, and the order in which layers stay float: that of the ONNX file's errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Generic, TypeVar

import numpy as np
import onnx
from pydantic import Field
from torch import Tensor

from prunec.deploy.exporter import Lossy
from prunec.errors import PassError
from prunec.exporters._int8_calibration import (
    Inputs,
    Probe,
    Range,
    Session,
    Values,
    errors_of,
    layers_of,
    ranges_of,
)
from prunec.wording import percent

Ranges = Mapping[str, Range]
Errors = Mapping[str, float]
"""Node of the ONNX file → relative error of its outputs if this layer alone is integer."""
Percentiles = Annotated[tuple[Annotated[float, Field(gt=50, le=100)], ...], Field(min_length=1)]
PERCENTILES = (99.9, 99.99, 100.0)

M = TypeVar("M")


@dataclass
class Attempts(Generic[M]):
    """Files of one form that are tried, and the data that stays the same.

    Attributes:
        model: ONNX file of the network.
        batches: calibration images.
        labels: their labels; empty if there are none.
        bits: bits of an integer weight.
        probe: the form's float network.
        quantised: function of the ranges of the probe's values, and of the layers that stay float:
            the file in which all other layers are integer.
        outputs: function of a file: its first output for each batch, as its runtime computes it.
    """

    model: onnx.ModelProto
    batches: Sequence[Inputs]
    labels: Sequence[Tensor]
    bits: int
    probe: Values
    quantised: Callable[[Ranges, Errors], M]
    outputs: Callable[[M], Iterable[np.ndarray]]

    @cached_property
    def layers(self) -> Mapping[str, str]:
        """Node of the ONNX file → name of its kernel, for every layer that can be integer."""
        layers: Mapping[str, str] = layers_of(self.model)
        return layers

    @cached_property
    def right(self) -> Sequence[np.ndarray]:
        """Answers of the network."""
        session = Session(self.model)
        return [_answers(session.run(batch)[0]) for batch in self.batches]

    def worst(self, share: float) -> list[tuple[str, float]]:
        """Return all layers with their integer errors, the largest first."""
        probe = Probe(self.model)
        first = self.batches[:1]
        ranges = ranges_of(probe, first, (share,))[share]
        errors = errors_of(self.model, probe, first[0], ranges, bits=self.bits)
        return sorted(errors.items(), key=lambda pair: -pair[1])

    def answers(self, made: M) -> tuple[float, float]:
        """Return the share of equal answers of a file, and its loss of accuracy in points."""
        pairs = list(zip(self.right, map(_answers, self.outputs(made)), strict=True))
        total = sum(a.size for a, _ in pairs)
        equal = sum(int((a == b).sum()) for a, b in pairs)
        lost = sum(
            int((a == label.numpy()).sum()) - int((b == label.numpy()).sum())
            for (a, b), label in zip(pairs, self.labels, strict=False)
        )
        return equal / total, 100 * lost / total


@dataclass(frozen=True)
class Chosen(Generic[M]):
    """File within its bounds.

    Attributes:
        made: the file.
        left: layers that stay float to meet the bounds, by the names of their kernels.
        percentile: percentile of the ranges.
    """

    made: M
    left: Errors
    percentile: float

    @property
    def remarks(self) -> list[str]:
        """Sentences on the layers that stay float."""
        return [
            f"{layer} is float: integers in it alone move its outputs by {percent(error)}"
            for layer, error in self.left.items()
        ]


def within_bounds(
    form: Lossy, attempts: Attempts[M], percentiles: Sequence[float], advice: str = ""
) -> Chosen[M]:
    """Return a file whose answers on the calibration images are within the bounds of its form.

    Of several percentiles, the first is chosen with which the answers are within the bounds. If
    none is, layers stay float with the best percentile, those with the largest error first. As few
    as possible do: the numbers tried are 1, 2, 4 and so on.

    Args:
        form: exporter of the form.
        attempts: files of the form.
        percentiles: percentiles of the values at which ranges may end.
        advice: what else may meet the bounds.

    Raises:
        PassError: no file does.
    """
    every = ranges_of(attempts.probe, attempts.batches, percentiles)
    agreements: dict[float, float] = {}
    for share, ranges in every.items():
        made = attempts.quantised(ranges, {})
        agreement, lost = attempts.answers(made)
        if _near(form, agreement, lost):
            return Chosen(made, {}, share)
        agreements[share] = agreement
    # The widest of equals: a float layer mends rounding, and no clipping before it.
    best = max(agreements, key=lambda share: (agreements[share], share))
    for left in _more_and_more(attempts.worst(best)):
        made = attempts.quantised(every[best], left)
        if _near(form, *attempts.answers(made)):
            return Chosen(made, {attempts.layers[node]: left[node] for node in left}, best)
    raise PassError(
        f"{form.form()} answers differently on more than {100 * (1 - form.agreement):g} % of the "
        f"images, or loses over {form.accuracy_drop:g} points, whichever layers stay float",
        remedy="Relax the bounds ([[export]] agreement, accuracy_drop), or train with smaller "
        f"ranges.{advice}",
    )


def _near(form: Lossy, agreement: float, lost: float) -> bool:
    return agreement >= form.agreement and lost <= form.accuracy_drop


def _more_and_more(worst: Sequence[tuple[str, float]]) -> Iterable[Errors]:
    """Yield the 1, 2, 4, … worst layers, but never all of them."""
    count = 1
    while count < len(worst):
        yield dict(worst[:count])
        count *= 2


def with_idle_producers(
    operations: Sequence[str], readers: Callable[[str], Iterable[str]], left: Iterable[str]
) -> set[str]:
    """Return the float layers, and the operations whose results float operations alone read.

    Such a result, a residual sum for example, would be rounded for nobody: half of the error of a
    layer lies in its input.

    Args:
        operations: operations that are no layers, in the order of computation.
        readers: function of an operation: the operations that read its results.
        left: layers that stay float.
    """
    floats = set(left)
    for name in reversed(operations):
        reading = set(readers(name))
        if reading and reading <= floats:
            floats.add(name)
    return floats


def _answers(outputs: np.ndarray) -> np.ndarray:
    return outputs.argmax(1) if outputs.ndim > 1 else np.round(outputs)
