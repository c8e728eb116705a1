"""Every error that prunec raises on purpose.

PrunecError                what was found, where, and what mends it
├── RecipeError            a recipe (or an option of the command line) is wrong
├── DataError              data, weights or labels are missing or do not fit
│   └── DamagedData        a file of a data set cannot be read or decoded
├── RunError               a run folder cannot be read, written or continued
│   ├── ReadOnlyRun        it can only be read
│   └── DamagedRecord      what it holds is not what was written
├── UsageError             a command line that does not parse (exit code 3)
├── UntraceableModel       a network could not be captured as a graph
├── PassError              a pass could not do its work
│   ├── NeedsNotMet        a pass stands where its needs are not met
│   ├── Diverged           the loss left the finite numbers
│   ├── OutOfMemory        a batch does not fit
│   ├── LostProcess           another process of a training ended
│   └── NotExact           a rewrite changed the network's function
├── Interrupted            a signal stopped the training, all is saved (128 + its number)
└── ParityError            a file is not equal to what was trained (exit code 2)
"""

from __future__ import annotations

LINES, REMEDY_LINES = 15, 4
"""How many lines a message and a remedy have at most: together they fit on a screen."""
COLUMNS = 1000
"""How many characters a line of them has at most: what was found may be megabytes."""


class PrunecError(Exception):
    """Base of all errors that a user can cause or mend; shown without a traceback.

    Args:
        message: what was found, and where.
        remedy: what mends it, as an instruction; empty when the message says it all.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        self.message = bounded(message, LINES)
        self.remedy = bounded(remedy, REMEDY_LINES)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


def bounded(text: str, lines: int) -> str:
    """Return a text with the ends of long lines, and the lines beyond the first, cut off."""
    parts = text[: 2 * lines * COLUMNS].split("\n") if len(text) > COLUMNS else text.split("\n")
    kept = [part if len(part) <= COLUMNS else f"{part[: COLUMNS - 1]}…" for part in parts[:lines]]
    if len(parts) > lines:
        kept[-1] = f"… and {text.count(chr(10)) + 2 - lines:,} more lines"
    return "\n".join(kept)


class RecipeError(PrunecError):
    """A recipe or an override is wrong: names file, key and remedy."""


class DataError(PrunecError):
    """Data, weights or labels are missing or do not fit the network."""


class DamagedData(DataError):
    """A file of a data set cannot be read or decoded: names it."""


class RunError(PrunecError):
    """A run folder cannot be found, read, written or continued."""


class ReadOnlyRun(RunError):
    """A run's folder that can only be read."""


class DamagedRecord(RunError):
    """A record, an artifact or a checkpoint is not what was written; names its file."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        usual = "Take another copy of the run, an earlier step or checkpoint, or train again."
        super().__init__(message, remedy=remedy or usual)


class UsageError(PrunecError):
    """A command line does not parse: it names what there is not, or lacks or misspells a value."""

    exit_code = 3


class UntraceableModel(PrunecError):
    """A network could not be captured as a graph."""


class PassError(PrunecError):
    """A pass could not do its work."""


class NeedsNotMet(PassError):
    """A pass stands at a place of the recipe where its needs are not met."""


class Diverged(PassError):
    """Training produced a loss that is not finite."""


class OutOfMemory(PassError):
    """A batch does not fit into memory; says which would."""


class LostProcess(PassError):
    """Another process of a training on several ended or fell silent."""


class NotExact(PassError):
    """A rewrite changed the function of the network: a defect of prunec, nothing is written."""


class Interrupted(PrunecError):
    """A signal stopped the training; it goes on with ``--resume``.

    Args:
        message: which signal, and where.
        exit_code: of the process, as shells count: 128 and the signal's number.
        remedy: how it goes on.
    """

    def __init__(self, message: str, exit_code: int, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.exit_code = exit_code


class ParityError(PrunecError):
    """A shipped file is not equal to the network it was made from."""

    exit_code = 2
