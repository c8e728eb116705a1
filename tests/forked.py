"""Processes of their own that need not import torch again, which takes seconds: they are forked."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 120  # seconds


@dataclass(frozen=True)
class Ended:
    """Exit code of a process, as in :mod:`subprocess`, and output of it and its children."""

    returncode: int
    stdout: str
    stderr: str


class Forked:
    """A process at work, in a session of its own; what it says goes into two files of a folder."""

    def __init__(self, work: Callable[[], None], folder: Path) -> None:
        self._said = [folder / name for name in ("stdout", "stderr")]
        for path in self._said:
            path.write_text("")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads: none of ours computes
            self.pid = os.fork()
        if self.pid == 0:
            self._become(work)

    def ended(self) -> Ended:
        """Return when the process has ended; one that waits for ever is killed with its own."""
        end = time.monotonic() + PATIENCE
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        while not pid and time.monotonic() < end:
            time.sleep(0.02)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            os.killpg(self.pid, signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
        texts = [path.read_text("utf-8") for path in self._said]
        return Ended(os.waitstatus_to_exitcode(status), *texts)

    def _become(self, work: Callable[[], None]) -> None:
        code = 1
        try:
            os.setsid()
            for number, path in enumerate(self._said, 1):
                os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
            sys.stdout, sys.stderr = (os.fdopen(n, "w", 1, closefd=False) for n in (1, 2))
            warnings.simplefilter("ignore", DeprecationWarning)
            work()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1 if end.code else 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
