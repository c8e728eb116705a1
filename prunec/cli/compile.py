"""``prunec compile``: cuts, writes and proves a network that is already sparse.

It generates a recipe without a training pass, so that the rest is the same as ``prunec export``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunec.cli import completion
from prunec.cli.arguments import (
    AsJson,
    Classes,
    Inputs,
    IrVersion,
    NoRecipe,
    Opset,
    Root,
    Runners,
    Weights,
    WithPreprocessing,
    in_a_folder,
    onnx_options,
    parsed_inputs,
)
from prunec.cli.noise import keep_in
from prunec.cli.results import Ending, JUnit
from prunec.deploy.wishes import Wishes

if TYPE_CHECKING:
    from prunec.recipe import ModelSpec, Recipe

Folder = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FOLDER",
        help="Folder of the run  [default: a new one in --runs]",
        callback=in_a_folder,
    ),
]


def compile_network(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help="A network, as in a recipe's model.name",
            autocompletion=completion.model_names,
        ),
    ],
    weights: Weights = "",
    inputs: Inputs = None,
    masks: Annotated[
        str,
        typer.Option(
            "--masks", metavar="FILE", show_default=False, help="Masks by the weights' names"
        ),
    ] = "",
    classes: Classes = 0,
    data: Annotated[
        str,
        typer.Option(
            "--data", metavar="DATA", help="Images for the checks: a data set by name, or a folder"
        ),
    ] = "none",
    round_to: Annotated[
        str,
        typer.Option(
            "--round-to",
            metavar="N",
            help="Keep channels in multiples of N; `measured`: in counts measured fast here",
        ),
    ] = "1",
    output: Folder = None,
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
    """Cut a network that is already sparse, write it in every form, prove each file equal to it."""
    from prunec.recipe import ModelSpec
    from prunec.store.finding import runs_root

    ending = Ending(as_json, junit, wishes)
    ending.begin()
    # Only to report a mistyped shape before the checkpoint is read.
    parsed_inputs(inputs)
    spec = ModelSpec(
        name=network,
        weights=_whole_path(weights),
        masks=_whole_path(masks),
        classes=classes,
        input=tuple(inputs or ()),
    )
    recipe = _recipe(spec, data, _multiple(round_to), onnx_options(opset, ir_version))
    root = output.parent if output else runs_root(runs)
    asked = (output, None, None, no_recipe, runner or (), with_preprocessing or "")
    export_recipe(recipe, network, root, forms, ending, *asked)


def export_recipe(
    recipe: Recipe,
    source: str,
    root: Path,
    forms: tuple[str, ...],
    ending: Ending,
    folder: Path | None = None,
    output: Path | None = None,
    options: dict[str, dict[str, int]] | None = None,
    no_recipe: bool = False,
    runners: Sequence[str] = (),
    layout: str = "",
) -> None:
    """Export a new run of a recipe without a training pass, and print its folder.

    The folder is created after the network is built; it is removed again where an error ends the
    export before the first pass has written anything.
    """
    import shutil

    from prunec import pipeline
    from prunec.errors import PrunecError
    from prunec.store.new_runs import create_run

    untrained = pipeline.prepare_untrained(recipe, source, forms, options)
    run = create_run(recipe, root, folder=folder)
    ending.note(f"Run {run.path}")
    keep_in(run.path)
    try:
        made = pipeline.export(
            run, output, forms, ending.note, options, untrained, not no_recipe, runners, layout
        )
    except PrunecError:
        # Nothing was computed yet: a folder without a step would only be in the way.
        if not run.steps.exists():
            shutil.rmtree(run.path, ignore_errors=True)
        raise
    ending.end(made, run)


def _multiple(text: str) -> int | str:
    from prunec.errors import UsageError

    if text == "measured":
        return text
    # Nine digits at most: int() raises for thousands of digits. isdigit alone accepts digits
    # of other scripts.
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) <= 10**6:
        raise UsageError(
            f"--round-to {text!r} must be a whole number from 1 to 1,000,000, or 'measured'",
            remedy="For example: --round-to 8. 'measured' takes counts that are fast here.",
        )
    return int(text[:9])


def _recipe(spec: ModelSpec, data: str, round_to: int | str, onnx: dict[str, int]) -> Recipe:
    import re

    from prunec.pipeline.named import checkpoint_notes, classes_of
    from prunec.recipe import Recipe
    from prunec.recipe.schema import Budget, VerifySpec

    if spec.weights and not spec.classes:
        spec = spec.model_copy(update={"classes": classes_of(spec)})
    for note in checkpoint_notes(spec, spec.classes) if spec.weights else ():
        typer.echo(f"{spec.weights}: {note}", err=True)
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", spec.name.rpartition(":")[2]).strip("_.-")
    cut = {"name": "remove-channels", "round_to": round_to}
    return Recipe.model_validate(
        {
            # file systems allow names of 255 bytes; -001 and suffixes follow
            "name": name[:80] or "network",
            "model": spec,
            "data": _data(spec, data),
            "pass": ({"name": "zero-tiny-weights"}, cut, {"name": "fold-batchnorm"}),
            "export": ({"name": "to-onnx", **onnx},),
            # The command promises equality, not speed.
            "verify": VerifySpec(budget=Budget(latency_ratio=None)),
        }
    )


def _data(spec: ModelSpec, data: str) -> Any:
    """Return the data section: none, a set by name, or a folder with ImageNet's normalisation."""
    from prunec.cli.starter import starter
    from prunec.cli.starter_data import IMAGENET
    from prunec.inspection.network import parse_input
    from prunec.recipe import loads
    from prunec.recipe.network_and_data import DataSpec

    if data == "none":
        return DataSpec(name="none")
    if not Path(data).is_dir():
        return loads(starter(spec.name, data, "compiled")[0]).data
    size = list(parse_input(spec.inputs[0]).shape[2:]) if spec.inputs else [224, 224]
    return DataSpec(
        name="imagefolder",
        root=str(Path(data).resolve()),
        prepare=({"name": "Resize", "size": size},),
        mean=IMAGENET[0],
        std=IMAGENET[1],
    )


def _whole_path(named: str) -> str:
    """Make the path of a file absolute, so that the run can be exported again from any folder."""
    path, mark, entry = named.partition("::")
    return f"{Path(path).resolve()}{mark}{entry}" if Path(path).is_file() else named
