"""``prunec recipes``: lists and prints the recipes that come with prunec."""

from __future__ import annotations

from typing import Annotated

import typer

from prunec.cli import completion
from prunec.cli.groups import Group
from prunec.cli.printing import print_parts

recipes_app = typer.Typer(
    cls=Group,
    rich_markup_mode=None,
    help="List the recipes that come with prunec; `show NAME` prints one.",
)


@recipes_app.callback(invoke_without_command=True)
def recipes(context: typer.Context) -> None:
    """List the recipes that come with prunec; `show NAME` prints one."""
    if context.invoked_subcommand:
        return
    from prunec import recipe
    from prunec.cli import listings

    print_parts(listings.recipes_table(map(recipe.load_recipe, recipe.packaged_recipes())))


@recipes_app.command("show")
def show_recipe(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A packaged recipe: gdp_mbv2",
            autocompletion=completion.packaged_names,
        ),
    ],
) -> None:
    """Print a recipe that comes with prunec, comments included."""
    from prunec.recipe import packaged_text

    typer.echo(packaged_text(name), nl=False)


@recipes_app.command("schema", short_help="Print the JSON schema of recipes, for editors.")
def show_schema() -> None:
    """Print the JSON schema of recipes, for editors that check and complete TOML."""
    import json

    from prunec.recipe import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
