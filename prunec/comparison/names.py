"""The names of lines, each at the line's end: nobody has to look back and forth to a legend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from markupsafe import Markup

from prunec.charts import svg
from prunec.comparison.frame import Frame, Mean

GAP = 14.4  # between two names
FAR = 0.6  # of an axis's width: a line that ends before it is named where it ends


def name_lines(
    frame: Frame, ends: Mapping[str, Mean], tones: Mapping[str, str]
) -> Iterator[Markup]:
    """Yield every line's name at its right end; names beside the axes are moved apart."""
    shares = {name: frame.share(mean) for name, mean in ends.items()}
    gap = GAP / frame.height
    beside = apart({name: y for name, (x, y) in shares.items() if x >= FAR}, gap)
    side = -1
    for name, (x, y) in shares.items():
        if name in beside:
            left, middle = frame.at((1, beside[name]))
            start = frame.at((x, y))
            yield svg.line(f"leader {tones[name]}", (start[0] + 5, start[1]), (left + 7, middle))
            left += 10
        else:
            side = -side  # those within the axes above and below by turns
            left, middle = frame.at((x + 0.02, y + gap * side))
        yield svg.text(f"name {tones[name]}", (left, middle + 4), "start", name)


def apart(heights: dict[str, float], gap: float) -> dict[str, float]:
    """Return heights at least ``gap`` apart, in the same order and near those given.

    Names that would touch form a block, centred on the mean of their own heights.
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
            blocks[-2:] = [lower + upper]
    return {name: bottom(block) + gap * i for block in blocks for i, name in enumerate(block)}
