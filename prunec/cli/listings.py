"""Tables that the command line prints of recipes, of passes and of the steps of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from prunec.tables import FittedTable, listing, table
from prunec.wording import percent_of

if TYPE_CHECKING:
    from prunec.artifact import Step
    from prunec.contract import Pass
    from prunec.recipe import Recipe


def recipes_table(recipes: Iterable[Recipe]) -> FittedTable:
    """Return the table of recipes: name, epochs, description."""
    made = listing("recipe", "epochs", "description", numbers=["epochs"])
    for recipe in recipes:
        made.add_row(recipe.name, str(recipe.train.epochs), recipe.description)
    return made


def passes_table(classes: Mapping[str, type[Pass]]) -> FittedTable:
    """Return the table of passes: one line per pass, the first of its class's docstring."""
    made = listing("pass", "effect")
    for name, cls in classes.items():
        made.add_row(name, (cls.__doc__ or "").strip().partition("\n")[0])
    return made


def steps_table(title: str, steps: Iterable[Step]) -> FittedTable:
    """Return the table of the history of a network: one row per pass."""
    numbers = ["MACs", "params", "error", "seconds"]
    made = table(title, "step", *numbers, "notes", numbers=numbers)
    for step in steps:
        made.add_row(
            step.name,
            _change(*step.macs),
            _change(*step.params),
            "" if step.error is None else f"{step.error:.1e}",
            f"{step.seconds:.1f}",
            "\n".join(step.notes),
        )
    return made


def _change(before: int, after: int) -> str:
    if before == after:
        return f"{after:,}"
    return f"{before:,} → {after:,} ({percent_of(after, before)})"
