"""What other libraries say, kept off the screen: in a file of the run's folder.

Their warnings, log records and tracebacks, and those of their processes, arrive at this process's
standard error. While a command runs, that is a file; what prunec says there goes to `screen()`.
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

STDERR = 2
NAME = "libraries.log"
"""The file in a run's folder; none is left where nobody said anything."""


class Unexpected(PrunecError):
    """A fault of prunec's or of a library's, not of what was asked for."""


class Noise:
    """Where standard error goes while a command runs."""

    def __init__(self, screen: TextIO, path: Path) -> None:
        self.screen, self.path = screen, path

    def keep_in(self, folder: Path) -> None:
        """Let what was said, and what will be, stand in a file of ``folder``."""
        sys.stderr.flush()
        said, before = self.path.read_bytes(), self.path
        self.path = folder / NAME
        _lead_to(self.path)
        os.write(STDERR, said)
        before.unlink()

    def end(self, failed: bool) -> None:
        """Remove the file that nobody needs: an empty one, or one of no run after no failure."""
        sys.stderr.flush()
        os.dup2(self.screen.fileno(), STDERR)
        self.screen.close()
        said = self.path.is_file() and self.path.stat().st_size
        if not said or not (failed or self.path.name == NAME):
            self.path.unlink(missing_ok=True)


_wanted = False
_now: Noise | None = None


def keep_off_the_screen() -> None:
    """Let the commands of this process keep what libraries say from the screen."""
    global _wanted
    _wanted = True


def screen() -> TextIO:
    """Return where prunec speaks to a person beside its results."""
    return _now.screen if _now else sys.stderr


def keep_in(folder: Path) -> None:
    """Let what libraries say stand in a file of ``folder``."""
    if _now:
        _now.keep_in(folder)


@contextmanager
def kept() -> Iterator[None]:
    """Lead standard error to a file while the block runs, where this process wants that.

    Raises:
        Unexpected: what no error of prunec's is; its traceback is in the file that it names.
    """
    global _now
    if not _wanted:
        yield
        return
    _now, failed = _begun(), False
    try:
        yield
    except Exception as error:
        if isinstance(error, PrunecError | OSError) or _is_clicks(error):
            raise
        failed = True
        raise _told(error, _now.path) from error
    finally:
        _now.end(failed)
        _now = None


def hush() -> None:
    """Let nobody speak any more: what libraries say when the interpreter ends helps nobody."""
    sys.stderr.flush()
    _lead_to(Path(os.devnull))


def _begun() -> Noise:
    sys.stderr.flush()
    screen = os.fdopen(os.dup(STDERR), "w", buffering=1, encoding="utf-8", errors="replace")
    handle, path = tempfile.mkstemp(prefix="prunec-", suffix=".log")
    os.close(handle)
    _lead_to(Path(path))
    return Noise(screen, Path(path))


def _lead_to(path: Path) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(handle, STDERR)
    os.close(handle)


def _is_clicks(error: Exception) -> bool:
    """Whether an error is one by which a command line ends or says how it is used."""
    return any(cls.__module__.startswith(("click", "typer")) for cls in type(error).__mro__)


def _told(error: Exception, path: Path) -> Unexpected:
    """An error for a person; the traceback goes where the libraries' words go."""
    traceback.print_exception(error)
    said = (str(error).strip() or "no message").splitlines()[0]
    return Unexpected(
        f"something went wrong that prunec did not foresee: {type(error).__name__}: {said}",
        remedy=f"The traceback is in {path}: please report it with the command.",
    )
