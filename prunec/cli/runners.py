"""``prunec runners``: lists the runners of exported files, and installs what one needs."""

from __future__ import annotations

from typing import Annotated

import typer

from prunec.cli import completion
from prunec.cli.groups import Group
from prunec.cli.printing import print_parts

runners_app = typer.Typer(
    cls=Group,
    rich_markup_mode=None,
    help="List the runners of exported files; `setup NAME` installs what one needs.",
)


@runners_app.callback(invoke_without_command=True)
def runners(context: typer.Context) -> None:
    """List the runners that `--runner NAME` of verify, export, bench and predict takes."""
    if context.invoked_subcommand:
        return
    from prunec.pipeline import runner_states
    from prunec.tables import listing

    made = listing("runner", "files", "state")
    for name, suffixes, state in runner_states():
        made.add_row(name, " ".join(suffixes), state)
    print_parts(made)


@runners_app.command(short_help="Install what a runner needs besides Python packages.")
def setup(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A runner: qemu-aarch64", autocompletion=completion.runner_names
        ),
    ],
) -> None:
    """Install what a runner needs besides Python packages, into the user's cache folder."""
    from prunec import catalogue

    catalogue.runner(name).set_up(typer.echo)
