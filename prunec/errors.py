"""All errors that prunec raises on purpose.

PrunecError                base: message and remedy (exit code 1)
├── RecipeError            a recipe (or an option of the command line) is wrong
├── DataError              data, weights or labels are missing or do not fit
│   └── DamagedData        a file of a data set cannot be read or decoded
├── RunError               a run folder cannot be read, written or continued
│   ├── ReadOnlyRun        the folder cannot be written
│   └── DamagedRecord      a file in it was changed or is missing
├── UsageError             the command line does not parse (exit code 3)
├── UntraceableModel       a network could not be captured as a graph
├── PassError              a pass failed
│   ├── NeedsNotMet        the facts that a pass needs do not hold
│   ├── Diverged           the loss is not finite
│   ├── OutOfMemory        a batch does not fit into memory
│   ├── LostProcess        another process of a training ended
│   └── NotExact           a rewrite changed the network's function
├── Interrupted            a signal stopped the training (exit code 128 + its number)
└── ParityError            a file is not equal to the trained network (exit code 2)
"""

from __future__ import annotations

LINES, REMEDY_LINES = 15, 4
"""Largest number of lines of a message and of a remedy: together they fit on a screen."""
COLUMNS = 1000
"""Largest number of characters per line: a quoted value may be megabytes long."""


class PrunecError(Exception):
    """Base of all errors that a user can cause or fix; shown without a traceback.

    Args:
        message: the problem and its place.
        remedy: an instruction that fixes it; empty where the message implies it.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        self.message = bounded(message, LINES)
        self.remedy = bounded(remedy, REMEDY_LINES)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


def bounded(text: str, lines: int) -> str:
    """Return the first ``lines`` lines of a text, long ones cut; names the number of others."""
    # Cut before splitting: a quoted value may have millions of lines.
    parts = text[: 2 * lines * COLUMNS].split("\n") if len(text) > COLUMNS else text.split("\n")
    kept = [part if len(part) <= COLUMNS else f"{part[: COLUMNS - 1]}…" for part in parts[:lines]]
    if len(parts) > lines:
        kept[-1] = f"… and {text.count(chr(10)) + 2 - lines:,} more lines"
    return "\n".join(kept)


class RecipeError(PrunecError):
    """A recipe or an override is wrong; names file and key."""


class DataError(PrunecError):
    """Data, weights or labels are missing or do not fit the network."""


class DamagedData(DataError):
    """A file of a data set cannot be read or decoded; names the file."""


class RunError(PrunecError):
    """A run folder cannot be found, read, written or continued."""


class ReadOnlyRun(RunError):
    """The folder of a run cannot be written."""


class DamagedRecord(RunError):
    """A record, an artifact or a checkpoint was changed or is missing; names its file."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        usual = "Take another copy of the run, an earlier step or checkpoint, or train again."
        super().__init__(message, remedy=remedy or usual)


class UsageError(PrunecError):
    """A command line does not parse: an unknown command or option, a missing or wrong value."""

    exit_code = 3


class UntraceableModel(PrunecError):
    """A network could not be captured as a graph."""


class PassError(PrunecError):
    """A pass, an exporter or a runner failed."""


class NeedsNotMet(PassError):
    """A pass was run on an artifact on which the facts that it needs do not hold."""


class Diverged(PassError):
    """Training diverged: the loss is not finite."""


class OutOfMemory(PassError):
    """A batch does not fit into memory; the remedy names a batch size that does."""


class LostProcess(PassError):
    """Another process of a distributed training ended or does not respond."""


class NotExact(PassError):
    """A rewrite changed the network's function: a defect of prunec; nothing is written."""


class Interrupted(PrunecError):
    """A signal stopped the training; ``--resume`` continues it.

    Args:
        message: the signal, and where it arrived.
        exit_code: exit code of the process, as shells count: 128 plus the signal's number.
        remedy: the command that continues.
    """

    def __init__(self, message: str, exit_code: int, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.exit_code = exit_code


class ParityError(PrunecError):
    """An exported file is not equal to the network that it was made from."""

    exit_code = 2
