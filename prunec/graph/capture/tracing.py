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


def trace(
    module: nn.Module, example: tuple[Tensor, ...], batch: object = torch.export.Dim.AUTO
) -> torch.export.ExportedProgram:
    """Trace a network with the first axis of every input open.

    Args:
        module: the network.
        example: its positional inputs, batch first, at least two samples.
        batch: what is asked of the first axes; by default each may turn out to be fixed.

    Raises:
        UntraceableModel: it does not run on the example, or cannot be followed; says which.
    """
    try:
        with _torch_silent(), torch.no_grad():
            return torch.export.export(
                module, example, dynamic_shapes=_dynamic(module, example, batch)
            )
    except Exception as error:
        raise _uncaptured(module, example, error) from error


def _dynamic(module: nn.Module, example: tuple[Tensor, ...], batch: object) -> dict[str, object]:
    """The first axis of every input is open, in the form of the signature of ``forward``."""
    bound = inspect.signature(module.forward).bind(*example)

    def axes(value: object) -> object:
        if isinstance(value, tuple):
            return tuple(axes(item) for item in value)
        return {0: batch} if isinstance(value, Tensor) and value.dim() else None

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
        if _only_one_sample_runs(module, example):
            return UntraceableModel(
                f"{name} runs on the one sample of the example, and not on two of it, of shape "
                f"{shapes}: {_said(plain)}",
                remedy="A batch of one is doubled, for it would be taken for a constant. Let the "
                "network take any batch; an input whose first axis is no batch (a prior, a scale) "
                "belongs into a buffer of it.",
            )
        return UntraceableModel(
            f"{name} does not run on inputs of shape {shapes}: {_said(plain)}",
            remedy="Give inputs that its forward takes, in order and in shape.",
        )
    return UntraceableModel(
        f"torch.export could not capture {name} with any batch size: {_said(error)}",
        remedy="Make the forward pass free of data-dependent Python and literal batch sizes; "
        "`torch.export.export(model, example)` shows the line.",
    )


def _only_one_sample_runs(module: nn.Module, example: tuple[Tensor, ...]) -> bool:
    """Whether an example of one sample was doubled, and is what the network takes."""
    doubled = [x for x in example if x.dim() and len(x) == 2 and torch.equal(x[0], x[1])]
    if not doubled:
        return False
    single = [x[:1].clone() if any(x is y for y in doubled) else x.clone() for x in example]
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module(*single)
    except Exception:
        return False
    return True


def _said(error: Exception) -> str:
    """What, and where torch announces a list, its first point."""
    lines = [line.strip(" -") for line in str(error).strip().splitlines()]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1]) if lines else type(error).__name__
