"""Elements of SVG figures; all text in them is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup

Point = tuple[float, float]

_SVG = Markup(
    '<svg class="{}" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}" '
    'xmlns="http://www.w3.org/2000/svg">{}</svg>'
)
_DOCUMENT = Markup(
    '<svg class="{0}" width="{1:g}" height="{2:g}" viewBox="0 0 {1:g} {2:g}" role="img" '
    'aria-label="{3}" xmlns="http://www.w3.org/2000/svg">\n<style>\n{4}</style>\n'
    '<rect class="paper" width="{1:g}" height="{2:g}"/>\n{5}\n</svg>\n'
)
_MOVED = Markup('<g transform="translate({:g} {:g})">{}</g>')
_STRIP = Markup(
    '<svg class="strip" width="100%" height="{:g}" role="img" aria-label="{}" '
    'xmlns="http://www.w3.org/2000/svg">{}</svg>'
)
_TEXT = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
_LINE = Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
_PATH = Markup('<path class="{}" d="{}"/>')
_DOT = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{:g}">{}</circle>')
_CELL = Markup(
    '<rect class="{}" x="{:.3f}%" y="{:g}" width="{:.3f}%" height="{:g}"'
    ' fill-opacity="{:.2f}">{}</rect>'
)
_TITLE = Markup("<title>{}</title>")


def drawing(width: float, height: float, about: str, inside: Iterable[Markup], kind: str) -> Markup:
    """Return a figure that scales with the page and keeps its proportions."""
    return _SVG.format(kind, width, height, about, joined(inside))


def document(
    width: float, height: float, about: str, style: str, inside: Iterable[Markup], kind: str
) -> Markup:
    """Return a figure as a stand-alone file, with a background and its style sheet."""
    return _DOCUMENT.format(kind, width, height, about, style, joined(inside))


def moved(by: Point, inside: Iterable[Markup]) -> Markup:
    """Return elements in a group that is moved by (right, down)."""
    return _MOVED.format(*by, joined(inside))


def strip(height: float, about: str, inside: Iterable[Markup]) -> Markup:
    """Return a band of fixed height and the full width of the page, for cells without text."""
    return _STRIP.format(height, about, joined(inside))


def text(kind: str, at: Point, anchor: str, content: str) -> Markup:
    """Return a text; ``anchor`` is ``start``, ``middle`` or ``end``."""
    return _TEXT.format(kind, *at, anchor, content)


def line(kind: str, start: Point, end: Point) -> Markup:
    """Return a straight line."""
    return _LINE.format(kind, *start, *end)


def path(kind: str, points: Sequence[Point], *, closed: bool = False) -> Markup:
    """Return a line through points, or the area that it encloses."""
    steps = " L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return _PATH.format(kind, f"M{steps}{'Z' if closed else ''}")


def dot(kind: str, at: Point, radius: float, title: str = "") -> Markup:
    """Return a disc; its title is a tooltip."""
    return _DOT.format(kind, *at, radius, _TITLE.format(title) if title else "")


def cell(
    kind: str,
    left: float,
    width: float,
    top: float = 0,
    *,
    height: float,
    strength: float = 1,
    title: str = "",
) -> Markup:
    """Return a rectangle of a strip; ``left`` and ``width`` are shares of the strip's width."""
    return _CELL.format(
        kind, 100 * left, top, 100 * width, height, strength, _TITLE.format(title) if title else ""
    )


def joined(parts: Iterable[Markup]) -> Markup:
    """Return the elements, concatenated."""
    return Markup("").join(parts)
