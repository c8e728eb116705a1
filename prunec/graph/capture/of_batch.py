"""Merging of two recordings at two batch sizes: numbers become functions of the batch size."""

from __future__ import annotations

from typing import Any, NamedTuple

from prunec.graph.capture.form import Form
from prunec.graph.capture.recording import TensorRef, Unrecorded

BATCHES = 7, 12  # distinct, and unlikely as literal numbers of a network


class OfBatch(NamedTuple):
    """The number ``slope``·batch + ``rest``."""

    slope: int
    rest: int


def united(a: Any, b: Any) -> Any:
    """Return the value of both recordings, with :class:`OfBatch` where it depends on the batch
    size.
    """
    if type(a) is not type(b):
        raise Unrecorded("The type of an argument depends on the batch.")
    if isinstance(a, TensorRef):
        if a != b:
            raise Unrecorded("The choice of a tensor depends on the batch.")
        return a
    if isinstance(a, (list, tuple)) and len(a) == len(b):
        return [united(x, y) for x, y in zip(a, b, strict=True)]
    if isinstance(a, dict) and a.keys() == b.keys():
        return {key: united(a[key], b[key]) for key in a}
    if a == b:
        return a
    if type(a) is not int:
        raise Unrecorded("An argument depends on the batch.")
    # Two points determine a line; a third batch size is compared later (agreement.py).
    slope, left = divmod(b - a, BATCHES[1] - BATCHES[0])
    if left or slope < 1:
        raise Unrecorded("A number does not depend on the batch linearly.")
    return OfBatch(slope, a - slope * BATCHES[0])


def united_form(a: Form, b: Form) -> Form:
    """Return the form of both recordings."""
    if a.dtype != b.dtype:
        raise Unrecorded("The type of a tensor depends on the batch.")
    return Form(tuple(united(a.shape, b.shape)), a.dtype, a.device)
