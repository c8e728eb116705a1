"""Groups of commands: near names for a wrong one, and one way to write what a command takes."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

from prunec.cli.usage import MISTAKES, located
from prunec.errors import UsageError
from prunec.wording import did_you_mean


class Group(TyperGroup):
    """A group whose commands' arguments stand in help as ``NAME``, and ``[NAME]`` if optional."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command; name the nearest where there is none.

        Raises:
            UsageError: there is none of this name.
        """
        self.suggest_commands = False
        try:
            return super().resolve_command(ctx, args)
        except MISTAKES as error:
            if not args or args[0].startswith("-"):
                raise
            near = did_you_mean(args[0], list(self.commands))
            raise UsageError(
                f"{ctx.command_path} has no command {args[0]}",
                remedy=f"{near}`{ctx.command_path} -h` lists what there is.",
            ) from error

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, its arguments named in one style, its mistakes under its name."""
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
