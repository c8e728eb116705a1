"""Tables for people: recipes, passes, layers, channel groups, the steps of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Protocol, get_args, get_type_hints

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from prunec.artifact import Step
    from prunec.compile_report import CompileReport, GroupReport
    from prunec.contract import Pass
    from prunec.cost import Cost, LayerCost
    from prunec.recipe import Recipe


class ChannelGroup(Protocol):
    """What a table of channel groups reads: slices that are cut together."""

    @property
    def name(self) -> str:
        """The tensor that the channels stand on."""

    @property
    def size(self) -> int:
        """How many channels there are."""

    @property
    def members(self) -> Sequence[str]:
        """The parameters that are cut with them."""

    @property
    def pinned(self) -> str:
        """Why no channel may go; empty where they may."""


def table(title: str, *columns: str, numbers: Sequence[str] = ()) -> Table:
    """Return an empty table; the columns named in ``numbers`` are right-aligned."""
    made = Table(title=title, title_justify="left", header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left")
    return made


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


def layers_table(title: str, cost: Cost) -> Table:
    """Return the table of a network's layers: MACs of one sample, parameters, sparsity."""
    numbers = ["MACs", "share", "params", "sparsity"]
    made = table(title, "layer", "operator", *numbers, numbers=numbers)
    for layer in cost.layers:
        made.add_row(
            Text(layer.name),
            layer.operator,
            f"{layer.macs:,}",
            percent(layer.macs, cost.macs),
            f"{layer.params:,}",
            _sparsity(layer),
        )
    made.add_section()
    made.add_row(
        "all",
        "",
        f"{cost.macs:,}",
        percent(cost.macs, cost.macs),
        f"{cost.params:,}",
        _sparsity(cost),
        style="bold",
    )
    return made


def groups_table(title: str, groups: Iterable[ChannelGroup]) -> Table:
    """Return the table of channel groups: how many channels, what goes with them, why not."""
    made = table(title, "group", "channels", "cut together", "kept because", numbers=["channels"])
    for group in groups:
        members = Text("\n".join(group.members))
        made.add_row(Text(group.name), f"{group.size:,}", members, Text(group.pinned))
    return made


def compile_tables(report: CompileReport) -> tuple[RenderableType, ...]:
    """Return what a person reads of a compile: how much went, why what stayed stayed, the groups."""
    before, after = report.before, report.after
    numbers = ["before", "after", "left"]
    cost = table("What went", "", *numbers, numbers=numbers)
    layers = len(report.layers)
    for name, pair in {
        "channels": report.channels,
        "layers": (layers, layers - len(report.gone)),
        "parameters": (before.params, after.params),
        "non-zero parameters": (before.nonzero_params, after.nonzero_params),
        "MACs": (before.macs, after.macs),
        "non-zero MACs": (before.nonzero_macs, after.nonzero_macs),
    }.items():
        cost.add_row(name, *(f"{count:,}" for count in pair), percent(pair[1], pair[0]))
    lines = [_listed("Layers gone", report.gone), _listed("Constants now", report.constants)]
    return (
        cost,
        *(line for line in lines if line),
        reasons_table(report.because),
        compiled_groups_table(report.groups),
    )


def reasons_table(because: Mapping[str, int]) -> Table:
    """Return the table of reasons for which channels stayed, with their counts."""
    made = table("Why channels stayed", "reason", "channels", numbers=["channels"])
    for reason, count in because.items():
        made.add_row(Text(reason), f"{count:,}")
    return made


def compiled_groups_table(groups: Iterable[GroupReport]) -> Table:
    """Return the table of channel groups: what is left of each, what is cut with it, why."""
    numbers = ["kept", "of"]
    made = table("Channel groups", "group", *numbers, "cut together", "stays", numbers=numbers)
    for group in groups:
        made.add_row(
            Text(group.name),
            f"{group.kept:,}",
            f"{group.size:,}",
            Text(owners(group.members)),
            Text(", ".join(f"{count:,} {why}" for why, count in group.because.items())),
        )
    return made


def owners(members: Iterable[str]) -> str:
    """Return the modules that own parameters, each once, parameters of none by their own name."""
    return ", ".join(dict.fromkeys(name.rpartition(".")[0] or name for name in members))


def as_text(*parts: RenderableType) -> str:
    """Return what a console of this terminal's width would print, without colours."""
    console = Console(file=StringIO(), color_system=None, highlight=False)
    with console.capture() as printed:
        console.print(*parts, sep="\n")
    return printed.get().rstrip()


def _listed(title: str, names: Sequence[str]) -> Text | None:
    return Text(f"{title}: {', '.join(names)}") if names else None


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


def percent(part: int, whole: int) -> str:
    """Return ``part`` of ``whole`` in percent, with one digit."""
    return f"{100 * part / whole:.1f}%" if whole else "—"


def _change(before: int, after: int) -> str:
    return f"{after:,}" if before == after else f"{before:,} → {after:,} ({percent(after, before)})"


def _sparsity(cost: Cost | LayerCost) -> str:
    return percent(cost.params - cost.nonzero_params, cost.params)


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
