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
    """Return the values of ``--set`` as they are.

    Raises:
        UsageError: one names no key.
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
        "that neither failed nor runs]",
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
        help="Of a network by name: one sample of each input: 3x160x160, 128:int64",
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        metavar="FILE",
        show_default=False,
        help="Of a network by name: a checkpoint, FILE::entry, or a name of torchvision's",
    ),
]
Classes = Annotated[
    int,
    typer.Option(
        "--classes",
        min=0,
        metavar="N",
        show_default=False,
        help="Of a network by name  [default: the weights', the factory's or 1000]",
    ),
]
Opset = Annotated[
    int | None,
    typer.Option("--opset", metavar="N", help="ONNX's operators, 9 to 25  [default: 18]"),
]
IrVersion = Annotated[
    int | None,
    typer.Option("--ir-version", metavar="N", help="ONNX's layout  [default: the opset's]"),
]


def known_runners(named: list[str] | str | None) -> list[str] | str | None:
    """Return what ``--runner`` names, if there are such runners.

    Raises:
        UsageError: there is none of a name.
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
                remedy=f"{did_you_mean(name, known)}`prunec runners` lists what there is.",
            )
    return named


Runners = Annotated[
    list[str] | None,
    typer.Option(
        "--runner",
        metavar="RUNNER",
        callback=known_runners,
        help="Prove it there as well: ssh://user@board, qemu-aarch64 (see `prunec runners`).",
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
        help="What runs it: ssh://user@board, openvino  [default: the file's own, here]",
        autocompletion=completion.runner_names,
        show_default=False,
    ),
]
WithPreprocessing = Annotated[
    Literal["nhwc", "nchw"] | None,
    typer.Option(
        "--with-preprocessing",
        metavar="LAYOUT",
        help="Files take images as uint8, nhwc or nchw, and normalise them themselves.",
    ),
]
NoRecipe = Annotated[
    bool,
    typer.Option("--no-recipe", help="Leave the recipe's text, which names folders, out of files."),
]


USUAL = (Path("runs"), Path("comparisons"))
"""Where runs and comparisons lie by default: these folders are made when they are first needed."""


def in_a_folder(path: Path | None) -> Path | None:
    """Return the path of a file or folder to be made, in a folder that is there.

    Raises:
        RunError: it is not there: a slip of the keyboard makes no folders.
    """
    if path is not None and not path.parent.is_dir() and path.parent not in USUAL:
        there = path.parent.exists()
        raise RunError(
            f"{path} cannot be written: {path.parent} is {'a file' if there else 'no folder'}",
            remedy="Name another place: -o FILE."
            if there
            else f"Make it first (mkdir -p {path.parent}), or name another place.",
        )
    return path


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="The file to write.", callback=in_a_folder),
]


def parsed_inputs(texts: list[str] | None) -> tuple[Input, ...]:
    """Return the inputs that ``--input`` names; imports torch.

    Raises:
        UsageError: one is no input.
    """
    from prunec.inspection.network import parse_input

    try:
        return tuple(map(parse_input, texts or ()))
    except PrunecError as error:
        raise UsageError(error.message, remedy=error.remedy) from None


def onnx_options(opset: int | None, ir_version: int | None) -> dict[str, int]:
    """The options of the ONNX exporter that a command line gives."""
    given = {"opset": opset, "ir_version": ir_version}
    return {name: value for name, value in given.items() if value is not None}


def run_of(reference: str | None, root: Path | None) -> RunFolder:
    """Return the run that a command line means.

    Raises:
        RunError: there is none.
    """
    from prunec.cli.selection import find_run
    from prunec.store.finding import runs_root

    return find_run(reference, runs_root(root))
