"""The time from a command to its first step of training, in parts."""

from __future__ import annotations

import time
from collections.abc import Callable


class Stopwatch:
    """Parts of a time, each with its name.

    Attributes:
        parts: name and seconds, in order.
    """

    def __init__(
        self, note: Callable[[str], None] | None = None, clock: Callable[[], float] | None = None
    ) -> None:
        """Begin the first part.

        Args:
            note: callback for one line with all parts, at the end; none by default.
            clock: function that returns the time in seconds.
        """
        self.note, self.clock = note, clock or time.perf_counter
        self.parts: list[tuple[str, float]] = []
        self.last = self.clock()

    def mark(self, name: str) -> None:
        """End a part under a name."""
        now = self.clock()
        self.parts.append((name, now - self.last))
        self.last = now

    def finish(self, name: str) -> None:
        """Name the last part and print all parts; once."""
        if self.note is None:
            return
        self.mark(name)
        total = sum(seconds for _, seconds in self.parts)
        parts = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in self.parts)
        self.note(f"First step after {total:.1f} s: {parts}")
        self.note = None
