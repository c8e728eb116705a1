"""Output of other libraries, kept off the screen: it goes to a file in the run's folder.

Their warnings, log records and tracebacks, and those of their subprocesses, are written to this
process's standard error. While a command runs, that is a file; prunec itself prints to `screen()`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from prunec.errors import PrunecError

STDERR = 2  # the descriptor, as POSIX numbers it
NAME = "libraries.log"
"""Name of the file in a run's folder; an empty one is removed."""


class Unexpected(PrunecError):
    """A defect of prunec or of a library, not a mistake of the user."""


class Noise:
    """Redirection of standard error to a file while a command runs.

    Attributes:
        screen: the standard error of before, for messages of prunec.
        path: the file.
    """

    def __init__(self, screen: TextIO, path: Path) -> None:
        self.screen, self.path = screen, path

    def keep_in(self, folder: Path) -> None:
        """Move the output so far to a file in ``folder``, and redirect later output there."""
        sys.stderr.flush()
        output, before = self.path.read_bytes(), self.path
        self.path = folder / NAME
        _redirect_to(self.path)
        os.write(STDERR, output)
        before.unlink()

    def end(self, failed: bool) -> None:
        """Restore standard error; keep the file only if it has output of a run or a failure."""
        sys.stderr.flush()
        os.dup2(self.screen.fileno(), STDERR)
        self.screen.close()
        has_output = self.path.is_file() and self.path.stat().st_size
        if not has_output or not (failed or self.path.name == NAME):
            self.path.unlink(missing_ok=True)


_enabled = False
_current: Noise | None = None


def keep_off_the_screen() -> None:
    """Enable the redirection for the commands of this process."""
    global _enabled
    _enabled = True


def screen() -> TextIO:
    """Return the stream for messages to the user: the real standard error."""
    return _current.screen if _current else sys.stderr


def keep_in(folder: Path) -> None:
    """Keep the output of libraries in a file in ``folder``."""
    if _current:
        _current.keep_in(folder)


@contextmanager
def kept() -> Iterator[None]:
    """Redirect standard error to a file while the block runs, if the redirection is enabled.

    Raises:
        Unexpected: in place of any exception that is not an error of prunec, of the system or of
            the parser; it names the file with the traceback.
    """
    global _current
    # Off in tests and in other programs, which own their standard error.
    if not _enabled:
        yield
        return
    _current, failed = _begun(), False
    try:
        yield
    except Exception as error:
        # The user can mend these; everything else is a defect, whose traceback belongs in the log.
        if isinstance(error, PrunecError | OSError) or _is_clicks(error):
            raise
        failed = True
        raise _unexpected(error, _current.path) from error
    finally:
        _current.end(failed)
        _current = None


def hush() -> None:
    """Discard standard error: complaints of libraries while the interpreter ends help nobody."""
    sys.stderr.flush()
    _redirect_to(Path(os.devnull))


def _begun() -> Noise:
    sys.stderr.flush()
    # Line by line: messages of several ranks must not mix within a line.
    screen = os.fdopen(os.dup(STDERR), "w", buffering=1, encoding="utf-8", errors="replace")
    handle, path = tempfile.mkstemp(prefix="prunec-", suffix=".log")
    os.close(handle)
    _redirect_to(Path(path))
    return Noise(screen, Path(path))


def _redirect_to(path: Path) -> None:
    # The descriptor, not sys.stderr: libraries in C and subprocesses write to the descriptor.
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(handle, STDERR)
    os.close(handle)


def _is_clicks(error: Exception) -> bool:
    """Return whether an exception is one of the command line parser's: an exit or a usage error."""
    return any(cls.__module__.startswith(("click", "typer")) for cls in type(error).__mro__)


def _unexpected(error: Exception, path: Path) -> Unexpected:
    """Return an error for the screen; its traceback goes to the file of the libraries' output."""
    traceback.print_exception(error)
    message = (str(error).strip() or "no message").splitlines()[0]
    return Unexpected(
        f"unexpected error: {type(error).__name__}: {message}",
        remedy=f"The traceback is in {path}: please report it with the command.",
    )
