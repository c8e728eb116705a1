"""Fixed input lengths by recordings: the network at other lengths, compared call by call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from prunec.graph.capture.other_lengths import Fixed, Shapes, fixed_lengths
from prunec.graph.capture.recording import Call, Hollow, Recording, TensorRef

_FEW = 150
"""Most calls of a network for which each axis is also tried alone: its recordings are quick."""


def lengths_by_recording(
    hollow: Hollow, first: Recording, example: tuple[Tensor, ...], passed: frozenset[int]
) -> tuple[Fixed, ...]:
    """Return the axes whose length a recording holds as a number.

    Args:
        hollow: recorded copy of the network.
        first: its recording.
        example: inputs of the same types, on the network's device.
        passed: calls of the recording whose arguments do not matter.
    """
    calls = _needed(first)
    device = example[0].device

    def follow(shapes: Shapes) -> str | None:
        pairs = zip(shapes, example, strict=True)
        inputs = tuple(torch.empty(s, dtype=x.dtype, device="meta") for s, x in pairs)
        try:
            other = hollow.record(inputs, device)
        except Exception:  # any error of an operator that does not accept this length
            return None
        return _difference(calls, _needed(other), passed)

    return fixed_lengths(first.shapes, follow, thorough=len(calls) <= _FEW)


def _difference(before: dict[int, Call], after: dict[int, Call], passed: frozenset[int]) -> str:
    """Return the first call that differs, with its module; empty if none differs."""
    for number, a, b in zip_longest(before, before.values(), after.values()):
        if a is None or b is None or a.target is not b.target:
            return _place(a or b)
        if number not in passed and not _same(_given(a), _given(b)):
            return _place(a)
    return ""


def _place(call: Call) -> str:
    name = str(call.target.overloadpacket.__name__)
    return f"{name} in {call.path}" if call.path else name


def _given(call: Call) -> Any:
    return call.args, call.kwargs


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return _same(list(a.items()), list(b.items())) if isinstance(b, dict) else False
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    # NaN arguments equal each other here.
    return bool(a == b) or (a != a and b != b)


def _needed(recording: Recording) -> dict[int, Call]:
    """Return the calls that the outputs need, by number; all of them if any writes in place.

    Operands are renumbered as if there were no other calls.
    """
    if any(call.target._schema.is_mutable for call in recording.calls):
        return dict(enumerate(recording.calls))
    needed: set[int | str] = {value.source for value in recording.outputs if value.kind == "call"}
    for number in reversed(range(len(recording.calls))):
        if number in needed:
            needed.update(_sources(_given(recording.calls[number])))
    kept = [number for number in range(len(recording.calls)) if number in needed]
    places = {number: place for place, number in enumerate(kept)}
    return {number: _renumbered(recording.calls[number], places) for number in kept}


def _sources(given: Any) -> Iterator[int | str]:
    if isinstance(given, TensorRef):
        if given.kind == "call":
            yield given.source
    elif isinstance(given, dict):
        yield from _sources(list(given.values()))
    elif isinstance(given, (list, tuple)):
        for item in given:
            yield from _sources(item)


def _renumbered(call: Call, places: dict[int, int]) -> Call:
    def put(given: Any) -> Any:
        if isinstance(given, TensorRef):
            here = given.kind == "call"
            return given._replace(source=places[int(given.source)]) if here else given
        if isinstance(given, dict):
            return {key: put(item) for key, item in given.items()}
        return type(given)(map(put, given)) if isinstance(given, (list, tuple)) else given

    return replace(call, args=put(call.args), kwargs=put(call.kwargs))
