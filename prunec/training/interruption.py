"""Signals that stop a training: it finishes the step, saves, and reports how to continue."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from prunec.errors import Interrupted
from prunec.processes import Processes

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Record of received signals.

    Attributes:
        asked: number of the signal; 0 for none.
    """

    def __init__(self) -> None:
        self.asked = 0

    def error(self, place: str) -> Interrupted:
        """Return the error that ends the training after it was saved at ``place``."""
        name = signal.Signals(self.asked).name if self.asked else "another process"
        code = 128 + (self.asked or signal.SIGINT)
        return Interrupted(f"stopped by {name} {place}; everything up to there is saved", code)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C stops at once
        self.asked = number


@contextmanager
def listening(processes: Processes) -> Iterator[Interruption]:
    """Record SIGINT and SIGTERM while the block runs in the main thread.

    When one of several processes fails, torchrun sends SIGTERM to the others: those that fail for
    the same reason must ignore it until they have reported the reason.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.signal(number, interruption._take) for number in SIGNALS}
    ended_well = False
    try:
        yield interruption
        ended_well = True
    finally:
        for number, handler in before.items() if ended_well or not processes.several else ():
            signal.signal(number, handler)
