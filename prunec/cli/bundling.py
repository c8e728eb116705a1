"""What ``--bundle`` takes: its place, and what a bundle holds besides."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from prunec.cli.arguments import in_a_folder
from prunec.deploy.wishes import Wishes
from prunec.errors import UsageError


def _options(
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            metavar="PLACE",
            help="Write all that passed as a bundle: a folder, or FILE.zip.",
            callback=in_a_folder,
        ),
    ] = None,
    release: Annotated[
        str,
        typer.Option(
            "--release",
            metavar="VERSION",
            help="Of the bundle  [default: the recipe's]",
            show_default=False,
        ),
    ] = "",
    sign: Annotated[
        Path | None,
        typer.Option("--sign", metavar="KEY", help="Sign the bundle, offline: a key as PEM."),
    ] = None,
    bom: Annotated[
        bool, typer.Option("--bom", help="Put CycloneDX's bill of materials into the bundle.")
    ] = False,
    layers: Annotated[
        bool,
        typer.Option("--golden-layers", help="Put values between layers in: check.py --layers."),
    ] = False,
) -> None:
    """Options of a bundle."""


def with_bundle(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that takes the options of a bundle, and gets ``wishes``, what they say.

    It raises UsageError where they say what a bundle holds, and name no place for it.
    """
    known = inspect.signature(_options).parameters

    @functools.wraps(command)
    def called(**options: Any) -> None:
        place, *others = (options.pop(name) for name in known)
        if place is None and any(others):
            raise UsageError(
                "--release, --sign, --bom and --golden-layers are of a bundle, and none is asked "
                "for",
                remedy="Name a place for it: --bundle FILE.zip.",
            )
        command(**options, wishes=Wishes(place, *others))

    hints = get_type_hints(_options, include_extras=True)
    ours = [p.replace(annotation=hints[name]) for name, p in known.items()]
    given = get_type_hints(command, include_extras=True)
    theirs = [
        p.replace(annotation=given[p.name])
        for p in inspect.signature(command).parameters.values()
        if p.name != "wishes"
    ]
    parameters = [*theirs, *ours]
    called.__annotations__ = {p.name: p.annotation for p in parameters}
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return called
