"""Fenced code blocks of README and docs, and the markers that say how each is run.

A comment on the line before a block says how it is run where a page does not run it itself::

    <!-- not run: needs a board -->
    <!-- run by tests/test_tasks.py -->
    <!-- printed -->            lines that the block before it printed
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUNNABLE = ("sh", "python", "toml")
_BLOCK = re.compile(r"^(?:<!-- (.*?) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, first line, language, text, and the marker before it."""

    page: Path
    line: int
    language: str
    text: str
    marker: str

    @property
    def place(self) -> str:
        """Page and line, as an editor takes them."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def runs_here(self) -> bool:
        """Whether the page's own test runs the block."""
        return self.language in RUNNABLE and not self.marker.startswith(("not run:", "run by "))


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in order."""
    text = page.read_text("utf-8")
    return [
        Block(page, text[: match.start()].count("\n") + 1, match[2], match[3], match[1] or "")
        for match in _BLOCK.finditer(text)
    ]
