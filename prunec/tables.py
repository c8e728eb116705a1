"""Tables for people: how they look, whatever stands in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text


def table(title: str, *columns: str, numbers: Sequence[str] = ()) -> Table:
    """Return an empty table; the columns named in ``numbers`` are right-aligned."""
    made = Table(title=title, title_justify="left", header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left")
    return made


def counts_table(title: str, counts: Mapping[str, int]) -> Table:
    """Return a table of reasons and how many channels each holds for."""
    made = table(title, "reason", "channels", numbers=["channels"])
    for reason, count in counts.items():
        made.add_row(Text(reason, overflow="fold"), f"{count:,}")
    return made


def as_text(*parts: RenderableType) -> str:
    """Return what a console of this terminal's width would print, without colours."""
    console = Console(file=StringIO(), color_system=None, highlight=False)
    with console.capture() as printed:
        console.print(*parts, sep="\n")
    return printed.get().rstrip()
