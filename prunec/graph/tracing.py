"""``torch.export``, with every batch open, quiet, and with errors that say what mends them."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from prunec.errors import UntraceableModel


def trace(module: nn.Module, example: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    """Trace a network with the first axis of every input open.

    Raises:
        UntraceableModel: it does not run on the example, or cannot be followed; says which.
    """
    try:
        with _torch_silent(), torch.no_grad():
            return torch.export.export(module, example, dynamic_shapes=_dynamic(module, example))
    except Exception as error:
        raise _uncaptured(module, example, error) from error


def _dynamic(module: nn.Module, example: tuple[Tensor, ...]) -> dict[str, object]:
    """The first axis of every input is open, in the form of the signature of ``forward``."""
    bound = inspect.signature(module.forward).bind(*example)

    def axes(value: object) -> object:
        if isinstance(value, tuple):
            return tuple(axes(item) for item in value)
        return {0: torch.export.Dim.AUTO} if isinstance(value, Tensor) and value.dim() else None

    return {name: axes(value) for name, value in bound.arguments.items()}


@contextmanager
def _torch_silent() -> Iterator[None]:
    """Torch tells of a failed capture on stderr, graph and all, before it raises."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _uncaptured(
    module: nn.Module, example: tuple[Tensor, ...], error: Exception
) -> UntraceableModel:
    """Why: the network does not take the example at all, or torch.export cannot follow it."""
    name = type(module).__name__
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module(*example)
    except Exception as plain:
        shapes = ", ".join(str(tuple(x.shape)) for x in example)
        return UntraceableModel(
            f"{name} does not run on inputs of shape {shapes}: {_first_line(plain)}",
            remedy="Give inputs that its forward takes, in order and in shape.",
        )
    return UntraceableModel(
        f"torch.export could not capture {name}: {_first_line(error)}",
        remedy="Make the forward pass free of data-dependent Python; "
        "`torch.export.export(model, example)` shows the line.",
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
