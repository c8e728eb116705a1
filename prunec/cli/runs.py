"""``prunec runs``: lists runs; ``rm`` deletes some, ``diff`` compares two."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.cli import completion
from prunec.cli.arguments import AsJson, Root
from prunec.cli.groups import Group
from prunec.errors import RunError

if TYPE_CHECKING:
    from rich.table import Table

    from prunec.store.differences import Difference, Pair
    from prunec.store.runs import RunFolder
    from prunec.store.summaries import Summary

runs_app = typer.Typer(
    cls=Group,
    rich_markup_mode=None,
    help="List runs: state, accuracy, MACs, age; `rm` deletes some, `diff` compares two.",
)

Name = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run's name or folder", autocompletion=completion.run_names
    ),
]
AGE_UNITS = ((60, "s", 1), (3600, "min", 60), (86400, "h", 3600), (float("inf"), "d", 86400))
"""(below how many seconds, unit, seconds of the unit): an age is written in its largest unit."""


@runs_app.callback(invoke_without_command=True)
def runs(context: typer.Context, as_json: AsJson = False, root: Root = None) -> None:
    """List runs: state, accuracy, MACs, age; `rm` deletes some, `diff` compares two."""
    if context.invoked_subcommand:
        return
    from prunec.store.finding import run_folders, runs_root
    from prunec.store.summaries import summary

    place = runs_root(root)
    # Oldest first, so that the latest run stands just above the prompt.
    summaries = sorted(map(summary, run_folders(place)), key=lambda s: (s.created, s.name))
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in summaries], indent=2, ensure_ascii=False))
    elif summaries:
        _print(_table(place, summaries))
    else:
        typer.echo(f"No runs in {place}. Train one: prunec train gdp_mbv2")


@runs_app.command("rm")
def remove(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN…", help="Names or folders of runs", autocompletion=completion.run_names
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking")] = False,
    root: Root = None,
) -> None:
    """Delete runs with everything in their folders. Asks first; refuses a run in progress."""
    from prunec.store.finding import runs_root
    from prunec.store.states import is_at_work

    chosen = _named(names, runs_root(root))
    # All are checked before the first is deleted: the command does all or nothing.
    busy = [str(run.path) for run in chosen if is_at_work(run)]
    if busy:
        raise RunError(
            f"another process is working on {', '.join(busy)}: nothing was deleted",
            remedy="Wait for it, or stop it: Ctrl-C saves its state.",
        )
    _require_consent(chosen, yes)
    for run in chosen:
        # Held while it is deleted, so that no training begins in it meanwhile.
        with run.held():
            shutil.rmtree(run.path)
        typer.echo(f"Deleted {run.path}")


@runs_app.command("diff", short_help="Compare two runs: recipes, results, environment.")
def diff(first: Name, second: Name, as_json: AsJson = False, root: Root = None) -> None:
    """Compare two runs: recipe keys that differ, results, MACs, environment."""
    from prunec.store.differences import difference
    from prunec.store.finding import runs_root

    a, b = _named([first, second], runs_root(root), unique=False)
    differences = difference(a, b)
    if as_json:
        typer.echo(json.dumps(asdict(differences), indent=2, ensure_ascii=False))
        return
    _print(*_tables((a.name, b.name), differences))


def _named(names: Sequence[str], root: Path, unique: bool = True) -> list[RunFolder]:
    """Return the runs of these names in ``root`` or at these paths; each once if ``unique``."""
    from prunec.store.finding import runs_there
    from prunec.store.runs import RunFolder

    by_path: dict[Path, RunFolder] = {}
    several = []
    for name in names:
        places = [place for place in (root / name, Path(name)) if (place / "run.json").is_file()]
        # `.` and `..` would name the folder of all runs.
        if not places or not name.strip("./"):
            raise RunError(f"there is no run {name}", remedy=runs_there(root))
        several.append(RunFolder(places[0]))
        by_path[places[0].resolve()] = several[-1]
    return list(by_path.values()) if unique else several


def _require_consent(chosen: Sequence[RunFolder], yes: bool) -> None:
    if yes:
        return
    count = f"{len(chosen)} run{'' if len(chosen) == 1 else 's'}"
    listed = ", ".join(str(run.path) for run in chosen)
    # A script that pipes into the command must not delete by accident.
    if not sys.stdin.isatty():
        raise RunError(
            f"{listed}: nothing was deleted, because no terminal is there to confirm it",
            remedy="Confirm with --yes.",
        )
    if not typer.confirm(f"Delete {count}, with checkpoints and exports: {listed}?"):
        raise RunError("nothing was deleted")


def _table(root: Path, summaries: Iterable[Summary]) -> Table:
    from rich.text import Text

    from prunec.tables import listing

    numbers = ("accuracy", "MACs", "age")
    made = listing("run", "state", *numbers, numbers=numbers)
    made.title = f"Runs in {root}"
    for one in summaries:
        made.add_row(Text(one.name), _state(one), _value(one), _macs(one), age_text(one.age))
    return made


def _state(one: Summary) -> str:
    if one.state in ("training", "interrupted", "failed") and one.epochs:
        return f"{one.state} {one.epoch or 0}/{one.epochs}"
    return one.state


def _value(one: Summary) -> str:
    if one.value is None:
        return "—"
    return f"{one.value:.2f} %{'' if one.quality == 'accuracy' else ' mIoU'}"


def _macs(one: Summary) -> str:
    from prunec.charts.scales import short
    from prunec.wording import percent_of

    if one.macs is None or one.dense_macs is None:
        return "—"
    return f"{short(one.macs)} ({percent_of(one.macs, one.dense_macs)})"


def age_text(seconds: float | None) -> str:
    """Return an age in its largest unit: ``40 s``, ``12 min``, ``3 h``, ``5 d``."""
    if seconds is None:
        return "—"
    seconds = max(0.0, seconds)
    return next(
        f"{seconds // unit:.0f} {name}" for below, name, unit in AGE_UNITS if seconds < below
    )


def _tables(names: tuple[str, str], differences: Difference) -> list[Table | str]:
    parts = (
        ("Recipe", differences.recipe, "The recipes are equal."),
        ("Results", differences.results, "Neither run has results."),
        ("Environment", differences.environment, "The environments are equal."),
    )
    return [_pairs(title, names, pairs) if pairs else none for title, pairs, none in parts]


def _pairs(title: str, names: tuple[str, str], pairs: Mapping[str, Pair]) -> Table:
    from rich.text import Text

    from prunec.tables import table

    first, second = names if names[0] != names[1] else (f"{names[0]} (1)", f"{names[1]} (2)")
    made = table(title, "", first, second)
    # Values that differ must be shown whole: cut, two of them may look equal.
    for column in made.columns:
        column.overflow = "fold"
    for key, values in pairs.items():
        made.add_row(Text(key), *(Text(_value_text(value)) for value in values))
    return made


def _value_text(value: object) -> str:
    match value:
        case None:
            return "—"
        case bool():
            return "true" if value else "false"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.6g}"
        case str():
            return value
    return json.dumps(value, ensure_ascii=False)


def _print(*parts: Table | str) -> None:
    from rich.console import Console

    console = Console()
    for part in parts:
        console.print(part, highlight=False)
