"""Errors on the screen: a message and a remedy, never a traceback; and the exit code."""

from __future__ import annotations

import errno
import os
from typing import Any

import typer

from prunec.cli import noise
from prunec.cli.groups import Group
from prunec.cli.usage import MISTAKES, explained
from prunec.errors import PrunecError, RunError, UsageError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells count: 128 plus the number of the signal, SIGINT = 2."""

REMEDIES = {
    errno.ENOSPC: "Free some space, or name a folder on another disk (--runs DIR, -o FILE).",
    errno.EDQUOT: "Free some space, or name a folder on another disk (--runs DIR, -o FILE).",
    errno.EROFS: "Name a folder that can be written (--runs DIR, -o FILE).",
    errno.EACCES: "Name a folder that can be written (--runs DIR, -o FILE).",
    errno.EPERM: "Name a folder that can be written (--runs DIR, -o FILE).",
}


ORDER = (
    "init", "recipes", "data", "train", "export", "verify", "bench", "predict", "report",
    "compile", "compact", "count", "inspect", "densities",
    "compare", "runs", "passes", "runners",
)  # fmt: skip
"""Commands in order of use: from recipe to device; for a given network; lists."""


class Guarded(Group):
    """The root group of commands: turns exceptions into messages and exit codes."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands in the order in which they are used."""
        known = {name: place for place, name in enumerate(ORDER)}
        return sorted(super().list_commands(ctx), key=lambda name: known.get(name, len(ORDER)))

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        """Parse the options that stand before a command; report mistakes in them."""
        try:
            return super().make_context(*arguments, **more)
        except MISTAKES as mistake:
            raise _ended(mistake) from mistake

    def invoke(self, ctx: Any) -> Any:
        """Run the command; turn its error into a message, its remedy and an exit code."""
        try:
            with noise.kept():
                return super().invoke(ctx)
        except MISTAKES as mistake:
            raise _ended(mistake) from mistake
        except PrunecError as error:
            show(error)
            raise typer.Exit(error.exit_code) from error
        except BrokenPipeError:
            raise  # `prunec passes | head`: click ends the process silently
        except OSError as error:
            show(from_system(error))
            raise typer.Exit(PrunecError.exit_code) from error
        except KeyboardInterrupt as error:
            show(PrunecError("interrupted"))
            raise typer.Exit(INTERRUPTED) from error


def _ended(mistake: Any) -> typer.Exit:
    """Print a mistake in the command line, or the help where nothing was given; return the exit."""
    # By name: typer carries a copy of click, whose class is another.
    if type(mistake).__name__ == "NoArgsIsHelpError":
        mistake.show()
    else:
        show(explained(mistake))
    return typer.Exit(UsageError.exit_code)


def from_system(error: OSError) -> RunError:
    """Return an error of the operating system as a RunError: file, reason, remedy."""
    file = f"{error.filename}: " if error.filename else ""
    reason = (error.strerror or str(error)).lower()
    return RunError(f"{file}{reason}", remedy=REMEDIES.get(error.errno or 0, ""))


def show(error: PrunecError) -> None:
    """Print an error and its remedy on stderr, unwrapped where a word has no room, for copying."""
    from rich.console import Console
    from rich.text import Text

    from prunec.tables import show as show_line

    console = Console(stderr=True)
    rank = os.environ.get("RANK", "0")
    if rank != "0":  # one line: rank 0 prints message and remedy for all
        console.print(Text(f"[rank {rank}] {error.message}"), soft_wrap=True)
        return
    parts = [("error: ", "red bold", error.message), ("remedy: ", "cyan bold", error.remedy)]
    for label, style, words in parts:
        if words:
            show_line(console, Text.assemble((label, style), words))
