"""``prunec init``: writes a first recipe for a network and its images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from prunec.cli import completion
from prunec.cli.arguments import Output
from prunec.cli.printing import say


def init(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help="A torchvision name, timm:NAME or package.module:factory",
            autocompletion=completion.model_names,
        ),
    ],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A folder of images, one folder per class; or a set: embedded, cifar10 …",
            autocompletion=completion.data_names,
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Training method, of the pass train-NAME: gdp, str, rigl …",
            autocompletion=completion.method_names,
        ),
    ] = "gdp",
    epochs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Epochs of training  [default: by data set]"),
    ] = None,
    size: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Height and width of the images  [default: by network and data set]",
            show_default=False,
        ),
    ] = 0,
    budget: Annotated[
        float | None,
        typer.Option(
            min=0.001,  # a share of 0 leaves no network, of 1 removes nothing
            max=0.999,
            metavar="SHARE",
            help="Share to keep of the MACs (gdp, magnitude) or of the weights (others): 0.3  "
            "[default: by method]",
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            metavar="WEIGHTS",
            help="Weights to start from: IMAGENET1K_V1 or a file  [default: random]",
            show_default=False,
        ),
    ] = "",
    output: Output = None,
) -> None:
    """Write a commented recipe for a network and its images, ready to run.

    Sizes, classes, mean and deviation of the images of a folder are read from a sample of them.
    """
    from prunec.cli.starter import Wishes, recipe_name, starter
    from prunec.errors import RecipeError
    from prunec.files import write_text_atomic

    # Checked before the images are surveyed, which takes seconds.
    path = output or Path(f"{recipe_name(model, data, method)}.toml")
    if path.exists():
        raise RecipeError(f"{path} already exists", remedy="Name another file: -o FILE.")
    wishes = Wishes(method, epochs, size, budget, weights)
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem).strip("._-")
    text, seen = starter(model, data, name or recipe_name(model, data, method), wishes)
    write_text_atomic(path, text)
    say(*filter(None, [seen, f"Wrote {path}. Run it with: prunec train {path}"]))
