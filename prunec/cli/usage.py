"""What is wrong about a command line, as an error of ours.

The parser's own exit code for it is 2, which is that of a gate that failed: who asks whether a file
may ship must be able to tell one from the other. Ours is 3.
"""

from __future__ import annotations

from typing import Any

import typer

from prunec.errors import UsageError
from prunec.wording import did_you_mean, nearest

PROGRAM = "prunec"

PHRASES = {
    "Value error, ": "",
    "Input should be a valid integer, unable to parse string as an integer": "it is no integer",
    "Input should be a valid number, unable to parse string as a number": "it is no number",
    "Input should be less than or equal to": "it must be at most",
    "Input should be greater than or equal to": "it must be at least",
    "Input should be": "it must be",
}
"""What the parser says of a value → the same in our words."""

MISTAKES: Any = typer.BadParameter.__bases__[0]
"""What the parser raises: of click, or of typer's own copy of it."""


def explained(error: Any) -> UsageError:
    """Return a parser's error as a sentence and a remedy."""
    command = error.ctx.command_path if error.ctx else PROGRAM
    ask = f"`{command} -h` shows what it takes."
    if error.ctx and type(error).__name__ == "NoSuchOption":
        near = _nearest(error.option_name, error.ctx.command)
        return UsageError(f"{command} has no option {error.option_name}", remedy=f"{near}{ask}")
    said = error.format_message().rstrip(".")
    for theirs, ours in PHRASES.items():
        said = said.replace(theirs, ours)
    said_for = _said_for(getattr(error, "param", None) or _parameter(error))
    return UsageError(f"{command}: {said[:1].lower()}{said[1:]}", remedy=f"{said_for}{ask}")


def located(read: Any) -> Any:
    """Return a command's reader of arguments, whose mistakes know the command."""

    def reading(context: Any, arguments: list[str]) -> Any:
        try:
            return read(context, arguments)
        except MISTAKES as mistake:
            mistake.ctx = mistake.ctx or context
            raise

    return reading


def _parameter(error: Any) -> Any:
    """The option that an error names, where the parser did not say which it is."""
    name, command = getattr(error, "option_name", ""), error.ctx.command if error.ctx else None
    return next((p for p in getattr(command, "params", ()) if name and name in p.opts), None)


def _said_for(parameter: Any) -> str:
    """What the help says of an option whose value was wrong."""
    words = (getattr(parameter, "help", "") or "").partition("  [")[0].rstrip(". ")
    if not words:
        return ""
    option = parameter.opts[0] if parameter.param_type_name == "option" else ""
    return f"{option} {parameter.metavar}: {words}. ".lstrip()


def _nearest(option: str, command: Any) -> str:
    """Name the option that was meant, or the key of a recipe that ``--set`` gives."""
    known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    near = did_you_mean(option, sorted(name for name in known if name.startswith("--")))
    if "--set" not in known:
        return near
    from prunec.recipe import settable_keys

    word = option.removeprefix("--").replace("-", "_")
    deepest_first = sorted(settable_keys(), key=lambda key: -key.count("."))
    keys = {key.rpartition(".")[2]: key for key in deepest_first}
    key = keys.get(word if word in keys or near else nearest(word, keys))
    return f"Did you mean '--set {key}=…'? " if key else near
