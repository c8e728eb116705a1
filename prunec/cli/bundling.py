"""Options of ``--bundle``: the bundle's place, version, signature and optional contents."""

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
            help="Write every form that passed as a bundle: a folder, or FILE.zip",
            callback=in_a_folder,
        ),
    ] = None,
    release: Annotated[
        str,
        typer.Option(
            "--release",
            metavar="VERSION",
            help="The bundle's version  [default: the recipe's]",
            show_default=False,
        ),
    ] = "",
    sign: Annotated[
        Path | None,
        typer.Option("--sign", metavar="KEY", help="Sign the bundle with a private key (PEM)"),
    ] = None,
    bom: Annotated[
        bool, typer.Option("--bom", help="Add a CycloneDX bill of materials to the bundle")
    ] = False,
    layers: Annotated[
        bool,
        typer.Option("--golden-layers", help="Add golden values per layer: check.py --layers"),
    ] = False,
    native: Annotated[
        bool,
        typer.Option("--native", help="Add native code and a library built from it"),
    ] = False,
) -> None:
    """Options of a bundle."""


def with_bundle(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a bundle to a command, which receives them as ``wishes``.

    The command raises UsageError where options of a bundle are given without ``--bundle``.
    """
    known = inspect.signature(_options).parameters

    @functools.wraps(command)
    def called(**options: Any) -> None:
        place, *others = (options.pop(name) for name in known)
        if place is None and any(others):
            raise UsageError(
                "--release, --sign, --bom, --golden-layers and --native need --bundle",
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
    # typer reads the options of a command from its signature, so the wrapper needs one of its own.
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return called
