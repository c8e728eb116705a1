"""Einsum of one or two tensors: a batched matrix product of rearranged axes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prunec.deploy.native.builder import Builder, Fields, Place
from prunec.deploy.native.layout import RANK, View, contiguous, rounded
from prunec.deploy.native.reading import Call


@dataclass(frozen=True)
class Equation:
    """Axis letters of an einsum equation.

    Attributes:
        operands: the letters of each operand.
        result: the letters of the result.
    """

    operands: tuple[str, ...]
    result: str


def einsum(builder: Builder, call: Call) -> None:
    """Append ``Einsum`` as a matrix product over batch, rows, inner and columns."""
    equation = _equation(builder, call)
    sizes = {
        letter: size
        for letters, operand in zip(equation.operands, call.operands, strict=True)
        for letter, size in zip(letters, builder.shape(operand), strict=True)
    }
    if len(equation.operands) == 1:
        _moved(builder, call, equation)
        return
    first, second = equation.operands
    both = [letter for letter in first if letter in second]
    batch = "".join(letter for letter in both if letter in equation.result)
    inner = "".join(letter for letter in both if letter not in equation.result)
    rows = "".join(letter for letter in first if letter not in second)
    columns = "".join(letter for letter in second if letter not in first)
    if set(rows + columns) - set(equation.result):
        raise call.refuse(f"{call.text('equation', '')!r}: it sums over an axis of one tensor")
    parts = {"batch": batch, "rows": rows, "inner": inner, "columns": columns}
    counts = {key: math.prod(sizes[letter] for letter in part) for key, part in parts.items()}
    a = _arranged(builder, call, 0, (first, batch + rows + inner))
    b = _arranged(builder, call, 1, (second, batch + inner + columns))
    made = _multiplied(builder, call, (a, b), counts)
    name, order = call.results[0], batch + rows + columns
    steps = dict(zip(order, contiguous([sizes[letter] for letter in order]), strict=True))
    view = View(builder.shape(name), tuple(steps[letter] for letter in equation.result))
    builder.move(call, (made, view), (builder.new(name), builder.layout(name).view))
    builder.clean(name)


def _equation(builder: Builder, call: Call) -> Equation:
    text = call.text("equation", "").replace(" ", "")
    left, arrow, right = text.partition("->")
    operands = tuple(left.split(","))
    if not arrow:
        # Without an arrow the result has the letters that occur once, in alphabetical order.
        right = "".join(sorted(letter for letter in set(left) - {","} if left.count(letter) == 1))
    twice = any(len(set(letters)) != len(letters) for letters in operands)
    if len(operands) > 2 or "." in text or twice:
        raise call.refuse(f"{text!r}: at most two tensors, no diagonals, no ellipses")
    return Equation(operands, right)


def _moved(builder: Builder, call: Call, equation: Equation) -> None:
    letters, name = equation.operands[0], call.results[0]
    if sorted(letters) != sorted(equation.result):
        raise call.refuse(f"{call.text('equation', '')!r}: it sums over an axis of one tensor")
    buffer, view = builder.values(call.operands[0])
    order = [letters.index(letter) for letter in equation.result]
    given = View(builder.shape(name), tuple(view.steps[i] for i in order), view.at)
    builder.move(call, (buffer, given), (builder.new(name), builder.layout(name).view))
    builder.clean(name)


def _arranged(builder: Builder, call: Call, number: int, letters: tuple[str, str]) -> str:
    """Append a copy of an operand with its axes permuted and contiguous; return its buffer."""
    before, after = letters
    buffer, view = builder.values(call.operands[number])
    order = [before.index(letter) for letter in after]
    sizes = tuple(view.sizes[i] for i in order)
    made = builder.scratch(rounded(math.prod(sizes)))
    given = View(sizes, tuple(view.steps[i] for i in order), view.at)
    builder.move(call, (buffer, given), (made, View(sizes, contiguous(sizes))))
    return made


def _multiplied(
    builder: Builder, call: Call, operands: tuple[str, str], counts: dict[str, int]
) -> str:
    batch, rows, inner, columns = (counts[key] for key in ("batch", "rows", "inner", "columns"))
    made = builder.scratch(rounded(batch * rows * columns))
    none = (0,) * (RANK - 1)
    fields: Fields = {
        "a": Place(operands[0]), "b": Place(operands[1]), "out": Place(made),
        "batch": (*(1,) * (RANK - 1), batch), "a_batch": (*none, rows * inner),
        "b_batch": (*none, inner * columns), "out_batch": (*none, rows * columns),
        "rows": rows, "columns": columns, "inner": inner, "a_row": inner, "a_step": 1,
        "b_step": columns, "b_column": 1, "out_row": columns, "out_column": 1,
    }  # fmt: skip
    builder.add("pn_product(&S, w);", "pn_product", fields, list(operands), made, call.name)
    return made
