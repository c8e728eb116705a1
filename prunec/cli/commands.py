"""The command line: each command finds its inputs, calls the pipeline and prints the result.

torch is imported inside the commands, so that help and completion answer at once, and only after
their inputs are found, so that a wrong command line is reported at once, too.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Annotated

# Before torch loads OpenMP: its threads spin while they wait, and on shared cores two spinning
# threads are up to 17 times slower than two sleeping ones.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import typer

from prunec.cli import completion, noise
from prunec.cli.arguments import (
    AsJson,
    Changes,
    Device,
    IrVersion,
    NoRecipe,
    Opset,
    Output,
    Root,
    Run,
    Runners,
    WithPreprocessing,
    onnx_options,
    run_of,
)
from prunec.cli.bench import bench
from prunec.cli.bundling import with_bundle
from prunec.cli.compact import compact
from prunec.cli.compare import compare
from prunec.cli.compile import compile_network, export_recipe
from prunec.cli.count import count
from prunec.cli.data import data_app
from prunec.cli.failures import Guarded
from prunec.cli.forms import with_forms
from prunec.cli.init import init
from prunec.cli.inspect import inspect
from prunec.cli.passes import passes_app
from prunec.cli.predict import predict
from prunec.cli.received import (
    NoCode,
    names_bundle,
    verify_received_bundle,
    verify_without_code,
)
from prunec.cli.recipes import recipes_app
from prunec.cli.results import Ending, JUnit
from prunec.cli.runners import runners_app
from prunec.cli.runs import runs_app
from prunec.deploy.wishes import Wishes
from prunec.errors import UsageError

app = typer.Typer(
    cls=Guarded,
    no_args_is_help=True,
    # rich's help draws boxes and cuts long words; click's plain help wraps and can be searched.
    rich_markup_mode=None,
    add_completion=False,  # completion.py declares these options, with help in prunec's words
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,  # Guarded reports all errors
    help="Compile and export sparse convolutional networks: train, cut, prove, ship.",
    epilog="Exit codes: 0 done, every check passed; 1 an error; 2 a check failed; 3 a wrong "
    "command line.",
)
app.add_typer(
    passes_app,
    name="passes",
    short_help="List the passes; `show NAME` explains one.",
    invoke_without_command=True,
)
app.add_typer(
    recipes_app,
    name="recipes",
    short_help="List the packaged recipes; `show NAME` prints one.",
    invoke_without_command=True,
)
app.add_typer(data_app, name="data")
app.add_typer(
    runs_app,
    name="runs",
    short_help="List the runs; `rm` deletes some, `diff` compares two.",
    invoke_without_command=True,
)
app.add_typer(
    runners_app,
    name="runners",
    short_help="List the runners of files; `setup NAME` installs what one needs.",
    invoke_without_command=True,
)
app.command(short_help="Remove the dead channels of a finished ONNX file.")(compact)
app.command(short_help="Train several recipes on equal terms; write one report.")(compare)
app.command("compile", short_help="Cut, write and prove a network that is already sparse.")(
    with_forms(with_bundle(compile_network))
)
app.command(short_help="Time an exported file against the dense network's, or two files.")(bench)
app.command(short_help="Print MACs and parameters, per layer and in total.")(count)
app.command(short_help="Write a recipe for a network and its images.")(init)
app.command(short_help="Print the five most probable classes of images.")(predict)
app.command(short_help="Show layers and channel groups, and the share that is left.")(inspect)


def main() -> None:
    """Run the command line of this process."""
    # Tracing makes millions of small objects that live to the end: looking through the youngest
    # 700 (Python's default) again and again is 6 % of an export and frees next to nothing.
    gc.set_threshold(20_000, 20, 100)
    noise.keep_off_the_screen()
    try:
        app(prog_name="prunec")
    except SystemExit:
        noise.hush()
        raise


def _print_version(wanted: bool) -> None:
    if wanted:
        from prunec.store.environment import prunec_version

        typer.echo(f"prunec {prunec_version()}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version"),
    ] = False,
    install: completion.Install = None,
    show: completion.Show = None,
) -> None:
    """Accept the options that stand before a command."""


@app.command(short_help="Train a recipe's network into a run's folder.")
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="A recipe's file or packaged name; with --resume also a run",
            autocompletion=completion.recipe_references,
        ),
    ] = None,
    device: Device = None,
    changes: Changes = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run or recipe named, or the latest run")
    ] = False,
    retune: Annotated[
        bool,
        typer.Option("--retune", help="Measure the GPU settings again; ignore remembered ones"),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print the time to the first step, in parts")
    ] = False,
    runs: Root = None,
) -> None:
    """Train a recipe's network; its folder records everything about the run.

    \b
    On several GPUs or machines:
    torchrun --nproc-per-node N -m prunec train RECIPE
    """  # noqa: D301 - click's mark of lines that are not wrapped
    from prunec.cli import launch
    from prunec.store.finding import runs_root

    launch.train(
        recipe,
        changes or [],
        device=device,
        resume=resume,
        root=runs_root(runs),
        retune=retune,
        verbose=verbose,
    )


@app.command(short_help="Cut a trained network, write it, prove each file equal.")
@with_forms
@with_bundle
def export(
    run: Run = None,
    output: Output = None,
    opset: Opset = None,
    ir_version: IrVersion = None,
    no_recipe: NoRecipe = False,
    as_json: AsJson = False,
    junit: JUnit = None,
    runner: Runners = None,
    with_preprocessing: WithPreprocessing = None,
    runs: Root = None,
    wishes: Wishes | None = None,
    forms: tuple[str, ...] = (),
) -> None:
    """Cut a trained network, write it in every requested form, and prove each file equal to it.

    RUN may be the file of a recipe without a training pass: then its network is exported as built.
    """
    ending = Ending(as_json, junit, wishes)
    ending.begin()
    given = onnx_options(opset, ir_version)
    options = {"onnx": given} if given else {}
    # A recipe instead of a run: it has no training pass, so that a new run can be exported at once.
    if run and run.endswith(".toml"):
        from prunec.cli.selection import untrained
        from prunec.store.finding import runs_root

        recipe = untrained(run)
        made_in, asked = runs_root(runs), (runner or (), with_preprocessing or "")
        given_to = (None, output, options, no_recipe, *asked)
        export_recipe(recipe, run, made_in, forms, ending, *given_to)
        return
    trained = run_of(run, runs)
    noise.keep_in(trained.path)

    from prunec import pipeline

    made = pipeline.export(
        trained,
        output,
        forms,
        options=options,
        note=ending.note,
        with_recipe=not no_recipe,
        runners=runner or (),
        layout=with_preprocessing or "",
    )
    ending.end(made, trained)


@app.command(short_help="Check an exported file against its run.")
def verify(
    run: Run = None,
    onnx: Annotated[
        Path | None,
        typer.Option("--onnx", metavar="FILE", help="File to check  [default: the run's]"),
    ] = None,
    as_json: AsJson = False,
    no_code: NoCode = False,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="Public key of a signed bundle (PEM)"),
    ] = None,
    junit: JUnit = None,
    runner: Runners = None,
    runs: Root = None,
) -> None:
    """Check an exported file against its run: MACs, parameters, outputs, accuracy, budgets.

    With --no-code, check it only against what the folder records: digests, counts, golden values.
    A bundle (a folder or FILE.zip of `export --bundle`) is checked in the same way.
    """
    ending = Ending(as_json, junit)
    ending.begin()
    # Before run_of, which would report that the folder of a bundle is not a run.
    if run and names_bundle(run):
        verify_received_bundle(Path(run), onnx, ending, runner or (), key)
        return
    if key is not None:
        raise UsageError(
            "--key needs a bundle", remedy="Name one: prunec verify FILE.zip --key FILE."
        )
    checked_run = run_of(run, runs)
    if no_code:
        verify_without_code(checked_run, onnx, ending, runner or ())
        return

    from prunec import pipeline

    ending.end(pipeline.verify(checked_run, onnx, runner or ()))


@app.command("report", short_help="Write a run's report.html again.")
def write_page(run: Run = None, runs: Root = None) -> None:
    """Write report.html again: one page that opens offline, with all that the run has so far."""
    opened = run_of(run, runs)

    from prunec.page import write_report

    typer.echo(write_report(opened))


@app.command(short_help="Write the density of every layer of a run.")
def densities(
    run: Run = None,
    output: Output = None,
    runs: Root = None,
) -> None:
    """Write the density of every layer of a run, as a start for other mask methods."""
    opened = run_of(run, runs)

    from prunec.sparsity.densities import save_densities

    path = output or Path("densities.json")
    density = save_densities(opened, path)
    typer.echo(f"Wrote {path}: {len(density)} layers of {opened.name}")
