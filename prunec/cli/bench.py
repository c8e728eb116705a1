"""``prunec bench``: times an exported file against the file of the dense network, or any two."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from prunec.cli import completion
from prunec.cli.arguments import AsJson, Root, RunBy, in_a_folder, run_of
from prunec.errors import UsageError


def bench(
    subjects: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN|A.onnx B.onnx",
            help="A run  [default: the latest], or two files: A's time by B's",
            autocompletion=completion.runs_and_files,
            show_default=False,
        ),
    ] = None,
    batch: Annotated[str, typer.Option("--batch", metavar="N,…", help="Batch sizes")] = "1,32",
    threads: Annotated[
        str, typer.Option("--threads", metavar="N,…", help="Threads per operator")
    ] = "1",
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=SIZES",
            help="Shape of an input that has dynamic sizes: x=1x3x224x224",
        ),
    ] = None,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            help="Also time every layer, by the runtime's profiler; with --runner"
            " native also its density, and its speed relative to the machine's",
        ),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Write a plot as SVG", callback=in_a_folder),
    ] = None,
    runner: RunBy = "",
    as_json: AsJson = False,
    runs: Root = None,
) -> None:
    """Time an exported file against the dense network's, or two files, in turns.

    Each round runs both. Rounds continue until the ratio is known to 2 %, or one file is faster at
    99 % confidence, or 20 s are over. Also prints memory, samples/s and MACs/s.
    """
    given = subjects or []
    # Before torch is imported: a mistyped list is reported at once.
    numbers = _numbers("--batch", batch), _numbers("--threads", threads)
    if len(given) > 2 or (given and given[0].endswith(".onnx") and len(given) != 2):
        raise UsageError(
            f"bench compares two files, found {len(given)}",
            remedy="Name both: prunec bench A.onnx B.onnx.",
        )
    if plot and plot.suffix != ".svg":
        raise UsageError(
            f"--plot writes SVG, and {plot.name} is named otherwise",
            remedy=f"Name it {plot.with_suffix('.svg').name}; browsers and editors show it.",
        )
    run = None if len(given) == 2 else run_of(given[0] if given else None, runs)

    from prunec.cost.onnx_sizes import parse_sizes
    from prunec.pipeline.benching import bench_plot, bench_tables, exported_files
    from prunec.pipeline.measuring import SIDES, Settings, bench_files, told_apart

    files = exported_files(run, runner) if run else (Path(given[0]), Path(given[1]))
    names = SIDES if run else told_apart(*files)
    name = run.name if run else f"{names[0]} by {names[1]}"
    settings = Settings(*numbers, parse_sizes(inputs or []), layers, runner)
    result = bench_files(*files, settings, names)
    if run and layers:
        from prunec.pipeline.layer_report import record_layers

        written = record_layers(run, result)
    if plot:
        from prunec.files import write_text_atomic

        write_text_atomic(plot, str(bench_plot(name, result)))
    if as_json:
        import json

        typer.echo(json.dumps(result.to_dict(), indent=2))
        return
    from prunec.cli.printing import print_parts

    print_parts(*bench_tables(name, result))
    if run and layers and written:
        typer.echo(f"The layers are on the run's page: {written}")


def _numbers(option: str, text: str) -> tuple[int, ...]:
    # Six digits at most: no batch is larger, and int() raises for thousands of digits.
    if not re.fullmatch(r"[1-9]\d{0,5}(,[1-9]\d{0,5})*", text):
        raise UsageError(
            f"{option} {text!r} must be a list of whole numbers, at least 1",
            remedy=f"Separate them with commas: {option} 1,8,32.",
        )
    return tuple(map(int, text.split(",")))
