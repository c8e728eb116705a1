"""``prunec count``: what a file or a network costs, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from prunec.cli.arguments import AsJson

if TYPE_CHECKING:
    from rich.table import Table

    from prunec.cost import Cost


def count(
    subject: Annotated[
        str, typer.Argument(metavar="FILE.onnx|NETWORK", help="A file, or a name of model.name.")
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="SIZES", help="One sample of each input: 3x160x160"),
    ] = None,
    weights: Annotated[
        str, typer.Option("--weights", help="A checkpoint or a name of torchvision's.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Print MACs, non-zero MACs and parameters of a file or a network, per layer and in all."""
    cost = _cost(subject, inputs or [], weights)
    if as_json:
        typer.echo(_json(cost))
        return
    from rich.console import Console

    Console().print(_table(subject, cost))


def _cost(subject: str, inputs: list[str], weights: str) -> Cost:
    if subject.endswith(".onnx"):
        from prunec.cost.onnx_graph import count_onnx
        from prunec.errors import PrunecError

        if inputs or weights:
            raise PrunecError(
                f"{subject} knows its inputs and weights",
                remedy="--input and --weights are for networks by name.",
            )
        return count_onnx(subject)
    from prunec.cost.torch_graph import count as count_module
    from prunec.inspection.network import parse_input
    from prunec.pipeline.named import named_network

    return count_module(*named_network(subject, tuple(map(parse_input, inputs)), weights))


def _json(cost: Cost) -> str:
    import json
    from dataclasses import asdict

    totals = {"macs": cost.macs, "nonzero_macs": cost.nonzero_macs}
    return json.dumps({**totals, **asdict(cost)}, indent=2)


def _table(title: str, cost: Cost) -> Table:
    from rich.text import Text

    from prunec.tables import table

    numbers = ("MACs", "non-zero", "params", "non-zero ")
    made = table(title, "layer", "operator", *numbers, numbers=numbers)
    for layer in cost.layers:
        values = (layer.macs, layer.nonzero_macs, layer.params, layer.nonzero_params)
        name = Text(layer.name, overflow="fold")
        made.add_row(name, layer.operator, *(f"{value:,}" for value in values))
    made.add_section()
    totals = (cost.macs, cost.nonzero_macs, cost.params, cost.nonzero_params)
    made.add_row("in all", "", *(f"{value:,}" for value in totals))
    return made
