"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from prunec.cli import completion
from prunec.errors import PrunecError, RunError, UsageError

if TYPE_CHECKING:
    from prunec.graph.rewriting.plan import Input
    from prunec.store.runs import RunFolder


def keyed(changes: list[str] | None) -> list[str] | None:
    """Check that every value of ``--set`` has the form ``KEY=VALUE``; return them unchanged.

    Raises:
        UsageError: a value has no ``=``, or no key before it.
    """
    for change in changes or ():
        if not change.partition("=")[1] or change.startswith("="):
            raise UsageError(
                f"--set {change}: must be KEY=VALUE", remedy="For example: --set train.epochs=3"
            )
    return changes


Root = Annotated[
    Path | None,
    typer.Option(
        "--runs", metavar="FOLDER", help="Folder of the runs  [default: $PRUNEC_RUNS or runs]"
    ),
]
Run = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help="A run's folder or name, or a recipe's name for its latest run  [default: the latest "
        "run that did not fail and is not training]",
        autocompletion=completion.run_names,
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key: --set train.epochs=3",
        callback=keyed,
        autocompletion=completion.settings,
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"] | None,
    typer.Option(metavar="DEVICE", help="auto, cpu or cuda  [default: the recipe's]"),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="SIZES",
        help="Shape of one sample of each input of a network by name: 3x160x160, 128:int64",
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        metavar="FILE",
        show_default=False,
        help="Weights of a network by name: a checkpoint, FILE::entry, or torchvision's name",
    ),
]
Classes = Annotated[
    int,
    typer.Option(
        "--classes",
        min=0,
        metavar="N",
        show_default=False,
        help="Classes of a network by name  [default: the weights', the factory's or 1000]",
    ),
]
Opset = Annotated[
    int | None,
    typer.Option("--opset", metavar="N", help="ONNX operator set, 9 to 25  [default: 18]"),
]
IrVersion = Annotated[
    int | None,
    typer.Option("--ir-version", metavar="N", help="ONNX IR version  [default: the opset's]"),
]


def known_runners(named: list[str] | str | None) -> list[str] | str | None:
    """Check that every runner that ``--runner`` names exists; return the names unchanged.

    Raises:
        UsageError: a runner does not exist.
    """
    from prunec.errors import UsageError
    from prunec.plugins import RUNNERS, plug_in_names
    from prunec.wording import did_you_mean, shortened

    known = plug_in_names(RUNNERS)
    for text in [named] if isinstance(named, str) else named or ():
        name = text.partition("://")[0]
        if text and name not in known:
            raise UsageError(
                f"--runner: there is no runner {shortened(text)!r}",
                remedy=f"{did_you_mean(name, known)}`prunec runners` lists all runners.",
            )
    return named


Runners = Annotated[
    list[str] | None,
    typer.Option(
        "--runner",
        metavar="RUNNER",
        callback=known_runners,
        help="Also check the files with RUNNER: ssh://user@board (see `prunec runners`)",
        autocompletion=completion.runner_names,
        show_default=False,
    ),
]
RunBy = Annotated[
    str,
    typer.Option(
        "--runner",
        metavar="RUNNER",
        callback=known_runners,
        help="Runner to use: ssh://user@board, openvino  [default: the form's own, here]",
        autocompletion=completion.runner_names,
        show_default=False,
    ),
]
WithPreprocessing = Annotated[
    Literal["nhwc", "nchw"] | None,
    typer.Option(
        "--with-preprocessing",
        metavar="LAYOUT",
        help="Make files that take uint8 images, nhwc or nchw, and normalise them",
    ),
]
NoRecipe = Annotated[
    bool,
    typer.Option("--no-recipe", help="Leave the recipe, which names folders, out of the files"),
]


DEFAULT_FOLDERS = (Path("runs"), Path("comparisons"))
"""Default folders of runs and comparisons; the only ones created when they are first needed."""


def in_a_folder(path: Path | None) -> Path | None:
    """Check that the folder that a new file or folder will stand in exists; return the path.

    Raises:
        RunError: the folder does not exist. It is not created, because the path may be a typing
            mistake.
    """
    if path is not None and not path.parent.is_dir() and path.parent not in DEFAULT_FOLDERS:
        is_file = path.parent.exists()
        reason = "is a file" if is_file else "does not exist"
        raise RunError(
            f"{path} cannot be written: {path.parent} {reason}",
            remedy="Name another place: -o FILE."
            if is_file
            else f"Create it first (mkdir -p {path.parent}), or name another place.",
        )
    return path


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="The file to write", callback=in_a_folder),
]


def parsed_inputs(texts: list[str] | None) -> tuple[Input, ...]:
    """Parse the values of ``--input``; imports torch.

    Raises:
        UsageError: a value is not the shape of an input.
    """
    from prunec.inspection.network import parse_input

    try:
        return tuple(map(parse_input, texts or ()))
    except PrunecError as error:
        raise UsageError(error.message, remedy=error.remedy) from None


def onnx_options(opset: int | None, ir_version: int | None) -> dict[str, int]:
    """Return the options of the ONNX exporter that the command line sets."""
    given = {"opset": opset, "ir_version": ir_version}
    return {name: value for name, value in given.items() if value is not None}


def run_of(reference: str | None, root: Path | None) -> RunFolder:
    """Return the run that RUN and ``--runs`` of a command line name.

    Raises:
        RunError: there is no such run.
    """
    from prunec.cli.selection import find_run
    from prunec.store.finding import runs_root

    return find_run(reference, runs_root(root))
