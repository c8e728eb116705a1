"""Claims on cells: one process at a time works on a cell, on whichever machine it runs."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


class Claim:
    """A cell of a comparison's folder, which machines may share.

    The lock lies in a file that the file system frees when the process ends, however it does; a
    file beside it says who holds it.

    Attributes:
        path: of the lock.
    """

    def __init__(self, folder: Path, cell: str) -> None:
        self.path = folder / "claims" / f"{cell}.lock"
        self._lock = FileLock(self.path, blocking=False)

    def take(self) -> bool:
        """Claim the cell; return whether it is this process's now."""
        if self._lock.is_locked:
            return True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            return False
        self._holder.write_text(f"{socket.gethostname()}, process {os.getpid()}\n", "utf-8")
        return True

    @contextmanager
    def making(self) -> Iterator[None]:
        """Keep others from beginning the same run while the block runs; it takes no time."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".making")):
            yield

    def release(self) -> None:
        """Let others have it."""
        if self._lock.is_locked:
            with suppress(OSError):
                self._holder.unlink()
            self._lock.release()

    @property
    def is_own(self) -> bool:
        """Whether this process has it."""
        return bool(self._lock.is_locked)

    @property
    def holder(self) -> str:
        """Name of the last holder; empty where that is not known."""
        try:
            return self._holder.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    @property
    def _holder(self) -> Path:
        return self.path.with_suffix(".holder")
