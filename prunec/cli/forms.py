"""A flag for every form that an exporter writes: ``--onnx``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from prunec.plugins import EXPORTERS, plug_in_names


def with_forms(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that takes a flag for each form, and gets ``forms``, those given.

    The file of an exporter is its registration.
    """
    names = {name.removeprefix("to-").replace("-", "_"): name for name in plug_in_names(EXPORTERS)}

    @functools.wraps(command)
    def called(**options: Any) -> None:
        forms = tuple(name.removeprefix("to-") for key, name in names.items() if options.pop(key))
        command(**options, forms=forms)

    hints = get_type_hints(command, include_extras=True)
    given = inspect.signature(command).parameters.values()
    parameters = [p.replace(annotation=hints[p.name]) for p in given if p.name != "forms"]
    for key, name in names.items():
        form = name.removeprefix("to-")
        told = typer.Option(f"--{form}", help=f"Write {form}, whether or not the recipe names it.")
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters.append(
            inspect.Parameter(key, kind, default=False, annotation=Annotated[bool, told])
        )
    called.__annotations__ = {p.name: p.annotation for p in parameters}
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return called
