"""``prunec count``: what a file, a network or a run costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.cli.arguments import AsJson, Root

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType
    from rich.table import Table

    from prunec.cost import Cost
    from prunec.store.runs import RunFolder


def count(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="FILE.onnx|NETWORK|RUN", help="A file, a name of model.name, or a run's folder."
        ),
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="SIZES", help="One sample of each input: 3x160x160"),
    ] = None,
    weights: Annotated[
        str, typer.Option("--weights", help="A checkpoint or a name of torchvision's.")
    ] = "",
    as_json: AsJson = False,
    runs: Root = None,
) -> None:
    """Print MACs, non-zero MACs and parameters, per layer and in all.

    Of a run: of the dense network, of what each pass left, of each file that ships. Operators whose
    MACs are not known are named, and no sum holds them.
    """
    run = _run(subject, runs)
    if run is not None or subject.endswith(".onnx"):
        _refuse_options(subject, inputs or [], weights)
    if run is not None:
        from prunec.pipeline.counting import count as count_run

        costs = count_run(run)
        _tell(_run_json(costs) if as_json else "", _run_tables(run.name, costs))
    else:
        cost = _cost(subject, inputs or [], weights)
        _tell(_json(cost) if as_json else "", [_table(subject, cost), *_uncounted(cost)])


def _run(subject: str, root: Path | None) -> RunFolder | None:
    """The run whose folder is meant; None where none is: a name may be a network's."""
    from prunec.store.finding import open_run, runs_root

    for folder in (Path(subject), runs_root(root) / subject):
        if subject and folder.is_dir():
            return open_run(folder)
    return None


def _refuse_options(subject: str, inputs: list[str], weights: str) -> None:
    from prunec.errors import PrunecError

    if inputs or weights:
        raise PrunecError(
            f"{subject} knows its inputs and weights",
            remedy="--input and --weights are for networks by name.",
        )


def _cost(subject: str, inputs: list[str], weights: str) -> Cost:
    if subject.endswith(".onnx"):
        from prunec.cost.onnx_graph import count_known

        return count_known(subject)
    from prunec.cost.torch_graph import count as count_module
    from prunec.inspection.network import parse_input
    from prunec.pipeline.named import named_network

    return count_module(*named_network(subject, tuple(map(parse_input, inputs)), weights))


def _tell(as_json: str, tables: list[RenderableType]) -> None:
    if as_json:
        typer.echo(as_json)
        return
    from rich.console import Console

    console = Console()
    for table in tables:
        console.print(table)


def _plain(cost: Cost) -> dict[str, object]:
    from dataclasses import asdict

    return {"macs": cost.macs, "nonzero_macs": cost.nonzero_macs, **asdict(cost)}


def _json(cost: Cost) -> str:
    import json

    return json.dumps(_plain(cost), indent=2)


def _run_json(costs: Mapping[str, Cost]) -> str:
    import json

    return json.dumps({name: _plain(cost) for name, cost in costs.items()}, indent=2)


_NUMBERS = ("MACs", "non-zero", "params", "non-zero ")


def _table(title: str, cost: Cost) -> Table:
    from rich.text import Text

    from prunec.tables import table

    made = table(title, "layer", "operator", *_NUMBERS, numbers=_NUMBERS)
    for layer in cost.layers:
        values = (layer.macs, layer.nonzero_macs, layer.params, layer.nonzero_params)
        name = Text(layer.name, overflow="fold")
        made.add_row(name, layer.operator, *(f"{value:,}" for value in values))
    for item in cost.uncounted:
        made.add_row(Text(item.name, overflow="fold"), item.operator, "?", "?", "", "")
    made.add_section()
    made.add_row("in all", "", *_totals(cost))
    return made


def _totals(cost: Cost) -> tuple[str, ...]:
    more = " + ?" if cost.uncounted else ""
    macs = (f"{value:,}{more}" for value in (cost.macs, cost.nonzero_macs))
    return (*macs, *(f"{value:,}" for value in (cost.params, cost.nonzero_params)))


def _uncounted(cost: Cost) -> list[RenderableType]:
    """A line for each operator that no sum holds."""
    from rich.text import Text

    return [Text(f"Not counted: {item}.") for item in cost.uncounted]


def _run_tables(title: str, costs: Mapping[str, Cost]) -> list[RenderableType]:
    from prunec.tables import table

    made = table(title, "step or file", *_NUMBERS, numbers=_NUMBERS)
    for name, cost in costs.items():
        made.add_row(name, *_totals(cost))
    last = list(costs.values())[-1]
    return [made, *_uncounted(last)]
