"""What the command line shows when a command fails: a message and a remedy, never a traceback."""

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
"""The exit code of a program that Ctrl-C ended: 128 and the number of the signal."""

REMEDIES = {
    errno.ENOSPC: "Free some space, or name a folder on another disk (--runs DIR, -o FILE).",
    errno.EDQUOT: "Free some space, or name a folder on another disk (--runs DIR, -o FILE).",
    errno.EROFS: "Name a folder that can be written (--runs DIR, -o FILE).",
    errno.EACCES: "Name a folder that can be written (--runs DIR, -o FILE).",
    errno.EPERM: "Name a folder that can be written (--runs DIR, -o FILE).",
}


class Guarded(Group):
    """A group of commands whose failures a person can read."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        """Read the options that stand before any command; say what is wrong about them."""
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
            raise  # `prunec passes | head`: click ends it in silence
        except OSError as error:
            show(from_system(error))
            raise typer.Exit(PrunecError.exit_code) from error
        except KeyboardInterrupt as error:
            show(PrunecError("interrupted"))
            raise typer.Exit(INTERRUPTED) from error


def _ended(mistake: Any) -> typer.Exit:
    """Say what is wrong about a command line, or how one is written; return how that ends."""
    if type(mistake).__name__ == "NoArgsIsHelpError":
        mistake.show()
    else:
        show(explained(mistake))
    return typer.Exit(UsageError.exit_code)


def from_system(error: OSError) -> RunError:
    """Return the system's refusal as an error of ours: the file, the reason, the remedy."""
    where = f"{error.filename}: " if error.filename else ""
    reason = (error.strerror or str(error)).lower()
    return RunError(f"{where}{reason}", remedy=REMEDIES.get(error.errno or 0, ""))


def show(error: PrunecError) -> None:
    """Print an error on stderr, and what mends it: lines that can be copied as they stand."""
    from rich.console import Console
    from rich.text import Text

    from prunec.tables import show as show_line

    console = Console(stderr=True)
    rank = os.environ.get("RANK", "0")
    if rank != "0":  # rank 0 says at length what befell all
        console.print(Text(f"[rank {rank}] {error.message}"), soft_wrap=True)
        return
    parts = [("error: ", "red bold", error.message), ("remedy: ", "cyan bold", error.remedy)]
    for label, style, words in parts:
        if words:
            show_line(console, Text.assemble((label, style), words))
