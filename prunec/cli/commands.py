"""The command line: each command finds its inputs, calls the pipeline, shows what came of it.

torch is imported inside the commands, so that help and completion answer at once, and after
their inputs are found, so that a mistake does.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

# Before torch loads OpenMP: its threads spin while they wait, and on shared cores two spinning
# threads are up to 17 times slower than two sleeping ones.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import typer

from prunec.cli import completion
from prunec.cli.arguments import (
    AsJson,
    Changes,
    Device,
    IrVersion,
    Opset,
    Output,
    Root,
    Run,
    onnx_options,
)
from prunec.cli.compare import compare
from prunec.cli.compile import compile_network, export_recipe
from prunec.cli.count import count
from prunec.cli.data import data_app
from prunec.cli.failures import Guarded
from prunec.cli.forms import with_forms
from prunec.cli.received import NoCode, inspect_without_code, verify_without_code
from prunec.cli.results import tell_export
from prunec.cli.runs import runs_app
from prunec.errors import RunError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from prunec.store.runs import RunFolder

app = typer.Typer(
    cls=Guarded,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Compile and export sparse convolutional networks: train, cut, prove, ship.",
)
recipes_app = typer.Typer(
    rich_markup_mode=None,
    help="List the recipes that come with prunec; `show NAME` prints one.",
)
app.add_typer(recipes_app, name="recipes", invoke_without_command=True)
app.add_typer(data_app, name="data")
app.add_typer(runs_app, name="runs", invoke_without_command=True)
app.command()(compare)
app.command("compile")(with_forms(compile_network))
app.command()(count)


def main() -> None:
    """Run the command line of this process."""
    app(prog_name="prunec")


def _print_version(wanted: bool) -> None:
    if wanted:
        from prunec.store.environment import prunec_version

        typer.echo(f"prunec {prunec_version()}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Take the options that stand before any command."""


@app.command()
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE]",
            help="A recipe's file or packaged name; with --resume also a run.",
            autocompletion=completion.recipe_references,
        ),
    ] = None,
    device: Device = None,
    changes: Changes = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run or recipe named, or the latest run.")
    ] = False,
    runs: Root = None,
) -> None:
    """Train a recipe's network; the run's folder says everything about it.

    On several GPUs or machines: torchrun --nproc-per-node N -m prunec train RECIPE
    """
    from prunec.cli import launch
    from prunec.store.runs import runs_root

    launch.train(recipe, changes or [], device=device, resume=resume, root=runs_root(runs))


@app.command()
@with_forms
def export(
    run: Run = None,
    output: Output = None,
    opset: Opset = None,
    ir_version: IrVersion = None,
    runs: Root = None,
    forms: tuple[str, ...] = (),
) -> None:
    """Cut a trained network, write it in every form asked for, and prove each file equal to it.

    RUN may be the file of a recipe without a training pass: its network is exported as it is built.
    """
    given = onnx_options(opset, ir_version)
    options = {"onnx": given} if given else {}
    if run and run.endswith(".toml"):
        from prunec.cli.selection import untrained
        from prunec.store.runs import runs_root

        recipe = untrained(run)
        export_recipe(recipe, run, runs_root(runs), forms, output=output, options=options)
        return
    found = _found(run, runs)

    from prunec import pipeline

    tell_export(pipeline.export(found, output, forms, options=options))


@app.command()
def verify(
    run: Run = None,
    onnx: Annotated[
        Path | None, typer.Option("--onnx", help="The file to check  [default: the run's]")
    ] = None,
    as_json: AsJson = False,
    no_code: NoCode = False,
    runs: Root = None,
) -> None:
    """Check a shipped file against its run: MACs, parameters, outputs, accuracy, budgets.

    With --no-code only against what the run's folder records: digests, counts, golden values.
    """
    found = _found(run, runs)
    if no_code:
        verify_without_code(found, onnx, as_json)
        return

    from prunec import pipeline

    tell_export(pipeline.verify(found, onnx), as_json)


@app.command()
def bench(run: Run = None, runs: Root = None) -> None:
    """Time a shipped file against the dense network's under onnxruntime, one thread."""
    found = _found(run, runs)

    from prunec import pipeline

    _print(pipeline.bench(found))


@app.command("report")
def write_page(run: Run = None, runs: Root = None) -> None:
    """Write a run's report.html anew: one page that opens offline, whatever the run has so far."""
    found = _found(run, runs)

    from prunec.page import write_report

    typer.echo(write_report(found))


@app.command()
def inspect(
    target: Annotated[
        str | None,
        typer.Argument(
            help="A run, or a network as in a recipe's model.name  [default: the latest]"
        ),
    ] = None,
    as_json: AsJson = False,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="SIZES",
            help="One sample of each input of a network by name: 3x160x160, 128:int64",
        ),
    ] = None,
    no_code: NoCode = False,
    runs: Root = None,
) -> None:
    """Show the layers and channel groups of a run or a network, and what of them is left.

    With --no-code only the layers of the files that a run's folder holds.
    """
    if no_code:
        inspect_without_code(_found(target, runs), as_json)
        return
    try:
        subject: RunFolder | str = _found(target, runs)
    except RunError:
        if target is None or "/" in target:
            raise
        subject = target

    from prunec import pipeline
    from prunec.inspection.network import inspection_tables, parse_input

    seen = pipeline.inspect(subject, tuple(map(parse_input, inputs or ())))
    if as_json:
        typer.echo(seen.to_json())
        return
    _print(*inspection_tables(seen))


@app.command()
def passes() -> None:
    """List the passes that a recipe may name, with their options."""
    from prunec import catalogue
    from prunec.cli import listings

    _print(listings.passes_table(catalogue.pass_classes()))


@app.command()
def densities(
    run: Run = None,
    output: Output = None,
    runs: Root = None,
) -> None:
    """Write the density of every layer of a run, for other mask methods to take over."""
    found = _found(run, runs)

    from prunec.sparsity.densities import save_densities

    path = output or Path("densities.json")
    density = save_densities(found, path)
    typer.echo(f"Wrote {path}: {len(density)} layers of {found.name}")


@recipes_app.callback()
def recipes(context: typer.Context) -> None:
    """List the recipes that come with prunec; `show NAME` prints one."""
    if context.invoked_subcommand:
        return
    from prunec import recipe
    from prunec.cli import listings

    _print(listings.recipes_table(map(recipe.load_recipe, recipe.packaged_recipes())))


@recipes_app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(autocompletion=completion.packaged_names)],
) -> None:
    """Print a recipe that comes with prunec, comments included."""
    from prunec.recipe import packaged_text

    typer.echo(packaged_text(name), nl=False)


@recipes_app.command("schema")
def show_schema() -> None:
    """Print the JSON schema of recipes, for editors that check and complete TOML."""
    import json

    from prunec.recipe import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@app.command()
def init(
    model: Annotated[str, typer.Argument(help="torchvision name, timm:name or package:factory")],
    data: Annotated[str, typer.Argument(autocompletion=completion.data_names)],
    output: Output = None,
) -> None:
    """Write a commented recipe for a network and a data set."""
    from prunec.cli.starter import recipe_name, starter
    from prunec.errors import RecipeError
    from prunec.files import write_text_atomic

    path = output or Path(f"{recipe_name(model, data)}.toml")
    if path.exists():
        raise RecipeError(f"{path} exists already", remedy="Name another file: -o FILE")
    write_text_atomic(path, starter(model, data, path.stem))
    typer.echo(f"Wrote {path}. Run it with: prunec train {path}")


def _found(reference: str | None, root: Path | None) -> RunFolder:
    from prunec.cli.selection import find_run
    from prunec.store.runs import runs_root

    return find_run(reference, runs_root(root))


def _print(*tables: RenderableType) -> None:
    from rich.console import Console

    console = Console()
    for table in tables:
        console.print(table)
