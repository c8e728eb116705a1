"""Laws of axes and of numbers as a page writes them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunec.charts.scales import (
    LARGEST,
    Scale,
    digits_apart,
    short,
    size,
    ticks,
    whole_ticks,
    with_equal_decimals,
)

shown = st.floats(-LARGEST, LARGEST)
epochs = st.integers(0, 10**9)


@given(shown, shown)
def test_ticks_hold_the_values_and_are_few_and_equally_far_apart(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    marks = ticks(low, high, 4)
    room = 1e-6 * max(abs(low), abs(high), 1e-30)
    assert marks[0] <= low + room
    assert marks[-1] >= high - room
    assert 2 <= len(marks) <= 7
    steps = [later - earlier for earlier, later in pairwise(marks)]
    assert max(steps) - min(steps) <= 1e-6 * max(map(abs, marks))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, [0, 50, 100]),
        (55.6, 86.6, [50, 60, 70, 80, 90]),
        (0, 0.059, [0, 0.02, 0.04, 0.06]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 4) == expected


@given(epochs, epochs)
def test_whole_ticks_hold_both_ends_and_are_few(a: int, b: int) -> None:
    low, high = min(a, b), max(a, b)
    marks = whole_ticks(low, high, 5)
    assert (marks[0], marks[-1]) == (low, high)
    assert marks == sorted(set(marks))
    assert len(marks) <= 7


def test_few_epochs_are_all_marked() -> None:
    assert whole_ticks(1, 5, 5) == [1, 2, 3, 4, 5]
    assert whole_ticks(3, 3) == [3]


@given(shown.filter(lambda x: abs(x) > 1 / LARGEST))
def test_a_short_number_is_the_number_to_three_digits(value: float) -> None:
    text = short(value)
    number, _, prefix = text.partition(" ")
    factor = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[prefix]
    assert float(number.replace(",", "")) * factor == pytest.approx(value, rel=0.051)
    if 1e-3 < abs(value) < 1e15:
        assert float(number.replace(",", "")) * factor == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1653456, "1.65 M"), (4089184256, "4.09 G"), (999.9, "1,000"), (2272, "2,272"),
     (0.0123, "0.0123"), (3e-7, "3.0e-07"), (1.0543e-5, "1.1e-05"),
     (86.55, "86.5"), (360586, "361 k"), (999999, "1 M")],
)  # fmt: skip
def test_short_numbers(value: float, text: str) -> None:
    assert short(value) == text


def test_numbers_of_a_column_have_as_many_decimals() -> None:
    assert [with_equal_decimals([0, 1])(x) for x in (0.25, 1, 0.5)] == ["0.25", "1.00", "0.50"]
    assert with_equal_decimals([0.04])(0.0123) == "0.0123"
    assert with_equal_decimals([1234.5])(1234.5) in ("1,234", "1,235")
    assert with_equal_decimals([])(0) == "0"


def test_bytes() -> None:
    assert (size(512), size(51234), size(1290000)) == ("512 B", "51.2 kB", "1.29 MB")


@given(shown, shown, shown)
def test_a_scale_stays_within_0_and_1(a: float, b: float, x: float) -> None:
    place = Scale(min(a, b), max(a, b))(x)
    assert 0 <= place <= 1
    assert not math.isnan(place)


def test_marks_that_are_close_are_written_apart() -> None:
    marks = ticks(98.9998, 99.0036, 4)
    assert len({short(mark, digits_apart(marks)) for mark in marks}) == len(marks)
    assert len({short(mark) for mark in marks}) == 1
    assert digits_apart([0, 20, 40]) == 3
