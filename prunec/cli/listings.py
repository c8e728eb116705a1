"""Tables of recipes, passes and the steps of a run, as the command line lists them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, get_args, get_type_hints

from rich.table import Table
from rich.text import Text

from prunec.tables import table
from prunec.wording import percent_of

if TYPE_CHECKING:
    from prunec.artifact import Step
    from prunec.contract import Pass
    from prunec.recipe import Recipe


def recipes_table(recipes: Iterable[Recipe]) -> Table:
    """Return the table of recipes: what each trains on what, by which passes."""
    made = table("Recipes", "name", "network", "data", "epochs", "what it is", numbers=["epochs"])
    for recipe in recipes:
        made.add_row(
            recipe.name,
            recipe.model.name.rpartition(":")[2],
            recipe.data.name,
            str(recipe.train.epochs),
            Text(recipe.description),
        )
    return made


def passes_table(classes: Mapping[str, type[Pass]]) -> Table:
    """Return the table of passes, read off their classes."""
    from prunec.contract import Training  # here: it imports torch, the other tables need none

    made = table("Passes", "name", "kind", "facts", "options", "what it does")
    for name, cls in classes.items():
        made.add_row(
            name,
            "training" if issubclass(cls, Training) else "rewrite",
            Text("\n".join(_facts(cls))),
            Text("\n".join(_options(cls))),
            Text((cls.__doc__ or "").strip().partition("\n")[0]),
        )
    return made


def steps_table(title: str, steps: Iterable[Step]) -> Table:
    """Return the table of what was done to a network: a row a pass."""
    numbers = ["MACs", "params", "error", "seconds"]
    made = table(title, "step", *numbers, "notes", numbers=numbers)
    for step in steps:
        made.add_row(
            step.name,
            _change(*step.macs),
            _change(*step.params),
            "" if step.error is None else f"{step.error:.1e}",
            f"{step.seconds:.1f}",
            Text("\n".join(step.notes)),
        )
    return made


def _change(before: int, after: int) -> str:
    if before == after:
        return f"{after:,}"
    return f"{before:,} → {after:,} ({percent_of(after, before)})"


def _facts(cls: type[Pass]) -> list[str]:
    kinds = {"needs": cls.needs, "forbids": cls.forbids, "adds": cls.adds, "drops": cls.drops}
    return [f"{kind} {', '.join(sorted(facts))}" for kind, facts in kinds.items() if facts]


def _options(cls: type[Pass]) -> list[str]:
    types = get_type_hints(cls)
    options = []
    for field in dataclasses.fields(cls):
        kind = types[field.name]
        name = str(kind) if get_args(kind) else kind.__name__
        default = "" if field.default is dataclasses.MISSING else f" = {field.default!r}"
        options.append(f"{field.name}: {name}{default}")
    return options
