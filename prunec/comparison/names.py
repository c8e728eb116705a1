"""Labels of lines at their ends, in place of a legend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from markupsafe import Markup

from prunec.charts import svg
from prunec.comparison.frame import Frame

GAP = 14.4  # least distance of two labels: 1.2 times the font size of 12


def name_lines(
    frame: Frame, ends: Mapping[str, svg.Point], tones: Mapping[str, str]
) -> Iterator[Markup]:
    """Yield every line's label right of the axes, moved apart, with a leader from the line's end.

    Inside the axes, labels would cover points.

    Args:
        frame: the axes.
        ends: name → last point of its line, in shares of width and height.
        tones: name → CSS class of its colour.
    """
    beside = apart({name: y for name, (_, y) in ends.items()}, GAP / frame.height)
    for name, share in ends.items():
        left, middle = frame.at((1, beside[name]))
        x, y = frame.at(share)
        yield svg.line(f"leader {tones[name]}", (x + 5, y), (left + 7, middle))
        yield svg.text(f"name {tones[name]}", (left + 10, middle + 4), "start", name)


def apart(heights: dict[str, float], gap: float) -> dict[str, float]:
    """Return heights at least ``gap`` apart, in the same order and close to the given ones.

    Labels that would overlap form a block, centred on the mean of their heights.
    """
    blocks: list[list[str]] = []

    def bottom(block: Sequence[str]) -> float:
        return sum(heights[name] for name in block) / len(block) - gap * (len(block) - 1) / 2

    for name in sorted(heights, key=lambda name: heights[name]):
        blocks.append([name])
        while len(blocks) > 1:
            lower, upper = blocks[-2:]
            if bottom(upper) - bottom(lower) >= gap * len(lower):
                break
            # Pool adjacent violators (Ayer et al. 1955): overlapping labels move together around
            # their mean.
            blocks[-2:] = [lower + upper]
    return {name: bottom(block) + gap * i for block in blocks for i, name in enumerate(block)}
