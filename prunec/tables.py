"""Tables for people: recipes, passes, layers, channel groups, the steps of a run."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, get_args, get_type_hints

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from prunec.artifact import Step
    from prunec.contract import Pass
    from prunec.inspection.compile_report import CompileReport, GroupReport
    from prunec.inspection.layer_tree import Branch
    from prunec.inspection.network import Inspection
    from prunec.recipe import Recipe


LABEL = 26  # characters of a tree's labels that are not folded
BILLION = 10**9  # from here on MACs are told in millions
USUAL = ("conv2d", "linear")  # operators that need not be named


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


def inspection_tables(seen: Inspection) -> tuple[RenderableType, ...]:
    """Return what a person reads of a network: its layers as a tree, its groups, the refusals."""
    refusals = counts_table("Channels that may not go", seen.refusals)
    return layers_table(seen), groups_text(seen.groups), refusals


def layers_table(seen: Inspection) -> Table:
    """Return the tree of layers: channels read and made, cost, what is left of what there was."""
    from prunec.inspection.layer_tree import (
        layer_tree,  # here: it imports torch, the other tables need none
    )

    cut = seen.cost != seen.dense
    tree = layer_tree(seen.layers)
    sparse = tree.nonzero_params < tree.params[0]
    unit, digits = (10**6, 1) if seen.dense.macs >= BILLION else (1, 0)
    names = ["in", "out", "MMACs" if digits else "MACs", "left" if cut else "share", "params"]
    names += ["zeros"] * sparse
    made = table(seen.title, "layer", *names, numbers=names)
    made.box, made.padding = None, (0, 2, 0, 0)  # lines would take the room of what stands there
    rows = list(tree.rows())
    # What cannot all stand on a line is folded, but not the branches of the tree.
    made.columns[0].min_width = min(LABEL, max(len(label) for label, _ in rows))

    def add(label: Text | str, branch: Branch, params: int, style: str = "") -> None:
        layer, (macs, dense) = branch.layer, branch.macs
        kernels = branch.params[0]
        cells = [
            label,
            _left_of(layer.inputs if layer else None),
            _left_of(layer.outputs if layer else None),
            f"{macs / unit:,.{digits}f}",
            percent(macs, dense if cut else seen.dense.macs),
            f"{params:,}",
            percent(kernels - branch.nonzero_params, kernels),
        ]
        made.add_row(*cells[: 1 + len(names)], style=style)

    for label, branch in rows:
        text = Text(label, style="" if branch.layer else "bold", overflow="fold")
        operator = branch.layer.operator if branch.layer else ""
        if operator not in USUAL and operator not in label:
            text.append(f" {operator}", style="dim")
        add(text, branch, branch.params[0])
    add("all, biases and norms too", tree, seen.cost.params, "bold")
    return made


def compile_tables(report: CompileReport) -> tuple[RenderableType, ...]:
    """Return what a person reads of a compile: how much went, why the rest stayed, the groups."""
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
        counts_table("Why channels stayed", report.because),
        groups_text(report.groups),
    )


def counts_table(title: str, counts: Mapping[str, int]) -> Table:
    """Return a table of reasons and how many channels each holds for."""
    made = table(title, "reason", "channels", numbers=["channels"])
    for reason, count in counts.items():
        made.add_row(Text(reason, overflow="fold"), f"{count:,}")
    return made


def groups_text(groups: Iterable[GroupReport]) -> Group:
    """Return the channel groups: what is left of each and why, and under it what is cut with it."""
    lines: list[RenderableType] = [Text("Channel groups", style="italic")]
    for group in groups:
        why = ", ".join(f"{count:,} {reason}" for reason, count in group.because.items())
        head = Text.assemble((group.name, "bold"), f"  {_left_of((group.kept, group.size))}")
        head.append(f"  {why}" if why else "")
        lines += [
            head,
            Padding(Text(owners(group.members), overflow="fold"), (0, 0, 0, 4), expand=False),
        ]
    return Group(*lines)


def owners(members: Iterable[str]) -> str:
    """Return the modules that own parameters, each once; those beside each other in braces.

    Parameters that no module owns stand by their own names.
    """
    names = dict.fromkeys(name.rpartition(".")[0] or name for name in members)
    found = []
    for parent, run in itertools.groupby(names, key=lambda name: name.rpartition(".")[0]):
        last = [name.rpartition(".")[2] for name in run]
        inside = f"{{{', '.join(last)}}}" if len(last) > 1 else last[0]
        found += last if not parent else [f"{parent}.{inside}"]
    return ", ".join(found)


def as_text(*parts: RenderableType) -> str:
    """Return what a console of this terminal's width would print, without colours."""
    console = Console(file=StringIO(), color_system=None, highlight=False)
    with console.capture() as printed:
        console.print(*parts, sep="\n")
    return printed.get().rstrip()


def _left_of(pair: tuple[int, int] | None) -> str:
    """What is left of what there was; one number where nothing went."""
    if pair is None:
        return ""
    return f"{pair[0]:,}" if pair[0] == pair[1] else f"{pair[0]:,}/{pair[1]:,}"


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
