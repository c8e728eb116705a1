"""Printing of results: lines and tables, as wide as the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType


def print_parts(*parts: RenderableType) -> None:
    """Print tables and texts, one under the other."""
    from rich.console import Console

    console = Console()
    for part in parts:
        console.print(part, highlight=False)


def say(*lines: str) -> None:
    """Print lines, wrapped between words on a terminal."""
    from rich.console import Console

    from prunec.tables import show

    console = Console()
    for line in lines:
        show(console, line)
