"""Formatting of values on screens."""

from __future__ import annotations

import pytest

from prunec.wording import duration, first_line, percent, percent_of


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [(0.4973, 1, "49.7 %"), (1.0, 1, "100.0 %"), (0.99992, 3, "99.992 %"), (0.2, 0, "20 %")],
)
def test_a_share_is_written_in_percent_with_a_space(share: float, digits: int, text: str) -> None:
    assert percent(share, digits) == text


def test_a_part_of_nothing_is_a_dash() -> None:
    assert percent_of(1, 4) == "25.0 %"
    assert percent_of(0, 0) == "—"


def test_an_error_is_reported_in_one_line_even_where_it_says_nothing() -> None:
    assert first_line(ValueError("\n first\nsecond")) == "first"
    assert first_line(ValueError(" \n")) == first_line(ValueError()) == "ValueError"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (75, "1:15"), (3675, "1:01:15")]
)
def test_a_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
