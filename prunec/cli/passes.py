"""``prunec passes``: lists the passes that a recipe may name."""

from __future__ import annotations

from typing import Annotated

import typer

from prunec.cli import completion
from prunec.cli.groups import Group
from prunec.cli.printing import print_parts

passes_app = typer.Typer(
    cls=Group,
    rich_markup_mode=None,
    help="List the passes that a recipe may name; `show NAME` explains one.",
)


@passes_app.callback(invoke_without_command=True)
def passes(context: typer.Context) -> None:
    """List the passes that a recipe may name; `show NAME` explains one."""
    if context.invoked_subcommand:
        return
    from prunec import catalogue
    from prunec.cli import listings

    print_parts(listings.passes_table(catalogue.pass_classes()))
    typer.echo("Options, ranges, defaults and paper of a pass: prunec passes show NAME")


@passes_app.command("show", short_help="Explain a pass: options, ranges, defaults, paper.")
def show_pass(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A pass: train-gdp", autocompletion=completion.pass_names
        ),
    ],
) -> None:
    """Explain a pass: what it does, its options with ranges and defaults, its paper."""
    from prunec import catalogue, recipe
    from prunec.cli.explained import explained

    cls = catalogue.pass_class(name)
    recipes = map(recipe.load_recipe, recipe.packaged_recipes())
    # Read from the recipes themselves, so that the list cannot be out of date.
    used = [one.name for one in recipes if any(table["name"] == name for table in one.passes)]
    print_parts(*explained(cls, catalogue.pass_options(name), used))
