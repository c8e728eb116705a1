"""Locks on cells: one process at a time works on a cell, across all machines."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


class Claim:
    """Lock on a cell of a comparison's folder, which machines may share.

    The file system frees the lock when the process ends, even if it crashes; a file next to it
    names the holder.

    Attributes:
        path: path of the lock file.
    """

    def __init__(self, folder: Path, cell: str) -> None:
        self.path = folder / "claims" / f"{cell}.lock"
        self._lock = FileLock(self.path, blocking=False)

    def take(self) -> bool:
        """Try to lock the cell; return whether this process holds it."""
        if self._lock.is_locked:
            return True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            return False
        # Beside the lock: a lock file cannot be read by others on every file system.
        self._holder.write_text(f"{socket.gethostname()}, process {os.getpid()}\n", "utf-8")
        return True

    @contextmanager
    def making(self) -> Iterator[None]:
        """Keep other processes from creating the same run during the block, which is short."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".making")):
            yield

    def release(self) -> None:
        """Unlock the cell."""
        if self._lock.is_locked:
            with suppress(OSError):
                self._holder.unlink()
            self._lock.release()

    @property
    def is_own(self) -> bool:
        """Whether this process holds the lock."""
        return bool(self._lock.is_locked)

    @property
    def holder(self) -> str:
        """Machine and process of the last holder; empty if unknown."""
        try:
            return self._holder.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    @property
    def _holder(self) -> Path:
        return self.path.with_suffix(".holder")
