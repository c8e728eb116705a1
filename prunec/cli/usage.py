"""Mistakes in a command line, turned from the parser's exceptions into errors of prunec.

Their exit code is 3. The parser's own is 2, which here means that a check failed: a script that
asks whether a file may ship must be able to tell the two apart.
"""

from __future__ import annotations

from typing import Any

import typer

from prunec.errors import UsageError
from prunec.wording import did_you_mean, nearest

PROGRAM = "prunec"

PHRASES = {
    "Value error, ": "",
    "Input should be a valid integer, unable to parse string as an integer": (
        "it must be a whole number"
    ),
    "Input should be a valid number, unable to parse string as a number": "it must be a number",
    "Input should be less than or equal to": "it must be at most",
    "Input should be greater than or equal to": "it must be at least",
    "Input should be": "it must be",
}
"""Message of the parser → the same in prunec's words."""

MISTAKES: Any = typer.BadParameter.__bases__[0]
"""Base of the parser's exceptions: click's UsageError, or that of typer's own copy of click."""


def explained(error: Any) -> UsageError:
    """Return the parser's exception as an error with a remedy."""
    command = error.ctx.command_path if error.ctx else PROGRAM
    ask = f"`{command} -h` shows what it takes."
    if error.ctx and type(error).__name__ == "NoSuchOption":
        near = _nearest(error.option_name, error.ctx.command)
        return UsageError(f"{command} has no option {error.option_name}", remedy=f"{near}{ask}")
    message = error.format_message().rstrip(".")
    # In the order of the table: the last phrase is the beginning of others.
    for theirs, ours in PHRASES.items():
        message = message.replace(theirs, ours)
    help_text = _help_of(getattr(error, "param", None) or _parameter(error))
    return UsageError(f"{command}: {message[:1].lower()}{message[1:]}", remedy=f"{help_text}{ask}")


def located(read: Any) -> Any:
    """Wrap a command's argument parser so that its exceptions carry the command's context."""

    def reading(context: Any, arguments: list[str]) -> Any:
        try:
            return read(context, arguments)
        except MISTAKES as mistake:
            mistake.ctx = mistake.ctx or context
            raise

    return reading


def _parameter(error: Any) -> Any:
    """Return the option that an exception names, where the parser did not attach it."""
    # click attaches the parameter to most errors, but not to a missing value.
    name, command = getattr(error, "option_name", ""), error.ctx.command if error.ctx else None
    return next((p for p in getattr(command, "params", ()) if name and name in p.opts), None)


def _help_of(parameter: Any) -> str:
    """Return an option and its help, ``--runs FOLDER: Folder of the runs.``, or nothing."""
    words = (getattr(parameter, "help", "") or "").partition("  [")[0].rstrip(". ")
    if not words:
        return ""
    option = parameter.opts[0] if parameter.param_type_name == "option" else ""
    return f"{option} {parameter.metavar}: {words}. ".lstrip()


def _nearest(option: str, command: Any) -> str:
    """Suggest the nearest option, or the recipe key to override with ``--set``."""
    known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    near = did_you_mean(option, sorted(name for name in known if name.startswith("--")))
    if "--set" not in known:
        return near
    from prunec.recipe import settable_keys

    word = option.removeprefix("--").replace("-", "_")
    # Later entries win in the dict below: of keys with the same last part, the shortest.
    deepest_first = sorted(settable_keys(), key=lambda key: -key.count("."))
    keys = {key.rpartition(".")[2]: key for key in deepest_first}
    key = keys.get(word if word in keys or near else nearest(word, keys))
    return f"Did you mean '--set {key}=…'? " if key else near
