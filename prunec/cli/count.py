"""``prunec count``: MACs, parameters and memory of a file, a network or a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.cli import completion
from prunec.cli.arguments import AsJson, Inputs, Root, Weights, parsed_inputs
from prunec.cli.memory import print_memory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from prunec.cost import Cost
    from prunec.store.runs import RunFolder


def count(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="FILE.onnx|NETWORK|RUN",
            help="An ONNX file, a network as in model.name, or a run's folder or name",
            autocompletion=completion.network_files,
        ),
    ],
    inputs: Inputs = None,
    weights: Weights = "",
    memory: Annotated[
        bool,
        typer.Option("--memory", help="Print the peak activation memory of the file or files"),
    ] = False,
    as_json: AsJson = False,
    runs: Root = None,
) -> None:
    """Print MACs, non-zero MACs and parameters, per layer and in total.

    For a run, print the totals of the dense network, of the network after each pass, and of each
    exported file. Operators of unknown MACs are named and not part of any sum.
    """
    run = _run(subject, runs)
    if run is not None:
        _require_no_options(subject, inputs or [], weights)
    elif subject.endswith(".onnx"):
        _require_no_options(subject, [], weights)
    if memory:
        print_memory(subject, run, inputs or [], as_json)
        return
    if run is not None:
        from prunec.pipeline.counting import count as count_run

        costs = count_run(run)
        _print(_run_json(costs) if as_json else "", _run_tables(run.name, costs))
    else:
        cost = _cost(subject, inputs or [], weights)
        _print(_json(cost) if as_json else "", [cost.table(subject), *cost.remarks])


def _run(subject: str, root: Path | None) -> RunFolder | None:
    """Return the run in a folder; None where there is no such folder: the name is a network's."""
    from prunec.store.finding import open_run, runs_root

    # A path comes first: what the user sees in the current folder wins over a run's name.
    for folder in (Path(subject), runs_root(root) / subject):
        if subject and folder.is_dir():
            return open_run(folder)
    return None


def _require_no_options(subject: str, inputs: list[str], weights: str) -> None:
    from prunec.errors import PrunecError

    if inputs or weights:
        raise PrunecError(
            f"{subject} has its own inputs and weights",
            remedy="Leave --input and --weights out: they are for networks by name.",
        )


def _cost(subject: str, inputs: list[str], weights: str) -> Cost:
    if subject.endswith(".onnx"):
        from prunec.cost.onnx_graph import count_known
        from prunec.cost.onnx_sizes import parse_sizes

        return count_known(subject, parse_sizes(inputs))
    from prunec.cost.torch_graph import count as count_module
    from prunec.pipeline.named import named_network

    return count_module(*named_network(subject, parsed_inputs(inputs), weights))


def _print(as_json: str, tables: list[RenderableType]) -> None:
    if as_json:
        typer.echo(as_json)
        return
    from rich.console import Console

    console = Console()
    for table in tables:
        console.print(table)


def _as_dict(cost: Cost) -> dict[str, object]:
    from dataclasses import asdict

    return {"macs": cost.macs, "nonzero_macs": cost.nonzero_macs, **asdict(cost)}


def _json(cost: Cost) -> str:
    import json

    return json.dumps(_as_dict(cost), indent=2)


def _run_json(costs: Mapping[str, Cost]) -> str:
    import json

    return json.dumps({name: _as_dict(cost) for name, cost in costs.items()}, indent=2)


def _run_tables(title: str, costs: Mapping[str, Cost]) -> list[RenderableType]:
    from prunec.cost import NUMBERS
    from prunec.tables import table

    made = table(title, "step or file", *NUMBERS, numbers=NUMBERS)
    for name, cost in costs.items():
        made.add_row(name, *cost.totals)
    return [made, *list(costs.values())[-1].remarks]
