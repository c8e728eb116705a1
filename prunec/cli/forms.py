"""One flag per form that an exporter writes: ``--onnx``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from prunec.plugins import EXPORTERS, plug_in_names


def with_forms(command: Callable[..., None]) -> Callable[..., None]:
    """Add one flag per exporter to a command, which receives the forms given as ``forms``."""
    # Python's parameter names have no hyphens; the flags keep them.
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
        flag = typer.Option(f"--{form}", help=f"Also write {form}")
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters.append(
            inspect.Parameter(key, kind, default=False, annotation=Annotated[bool, flag])
        )
    called.__annotations__ = {p.name: p.annotation for p in parameters}
    # typer reads the options of a command from its signature, so the wrapper needs one of its own.
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return called
