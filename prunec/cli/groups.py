"""Groups of commands: suggestions for a misspelt command, and one notation for arguments."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

from prunec.cli.usage import MISTAKES, located
from prunec.errors import UsageError
from prunec.wording import did_you_mean


class Group(TyperGroup):
    """A group of commands; help shows their arguments as ``NAME``, or ``[NAME]`` if optional."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command by its name.

        Raises:
            UsageError: there is no such command; names the nearest one.
        """
        # click would add its own suggestion to the message.
        self.suggest_commands = False
        try:
            return super().resolve_command(ctx, args)
        except MISTAKES as error:
            # A misspelt option is not a misspelt command.
            if not args or args[0].startswith("-"):
                raise
            near = did_you_mean(args[0], list(self.commands))
            raise UsageError(
                f"{ctx.command_path} has no command {args[0]}",
                remedy=f"{near}`{ctx.command_path} -h` lists the commands.",
            ) from error

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command: its arguments in one notation, its parse errors with its name."""
        command: Any = super().get_command(ctx, cmd_name)
        if command:
            command.parse_args = located(type(command).parse_args.__get__(command))
        parameters = command.params if command else []
        for parameter in parameters:
            if parameter.param_type_name == "argument":
                shown = _shown(parameter)
                parameter.make_metavar = lambda *_, shown=shown: shown
                parameter.get_usage_pieces = lambda _, shown=shown: [shown]
                parameter.display_type_rich = lambda *_, **__: ""
        return command


def _shown(argument: Any) -> str:
    name = argument.metavar or str(argument.name).upper()
    return name if argument.required else f"[{name}]"
