"""Signals that ask a training to stop: it finishes the step, saves, and says how to go on."""

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
    """What was asked so far.

    Attributes:
        asked: the number of the signal; 0 for none.
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
            raise KeyboardInterrupt  # the second time somebody is in a hurry
        self.asked = number


@contextmanager
def listening(processes: Processes) -> Iterator[Interruption]:
    """Take note of SIGINT and SIGTERM while the block runs, in the main thread.

    When one of several processes fails, torchrun sends SIGTERM to the others: those that fail for
    the same reason stay deaf to it, and say why before they end.
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
