"""``torch.export`` with dynamic batch sizes, silenced, and with errors that name a remedy."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._decomp import decomposition_table
from torch._subclasses.fake_tensor import FakeTensor

from prunec.errors import UntraceableModel
from prunec.graph.capture.contexts import derivatives, see_through
from prunec.graph.capture.copying import copied, standing_in
from prunec.graph.capture.samples import holds_samples
from prunec.graph.capture.surroundings import undisturbed


def trace(
    module: nn.Module, example: tuple[Tensor, ...], batch: object = torch.export.Dim.AUTO
) -> torch.export.ExportedProgram:
    """Trace a network with a dynamic batch: the first axis of every input that holds samples.

    Args:
        module: network; a copy that shares its parameters is traced.
        example: positional inputs, batch first, at least two samples.
        batch: dimension requested for the first axes; by default each may turn out to be fixed.

    Raises:
        UntraceableModel: the network does not run on the example, or cannot be followed.
    """
    try:
        own, given = standing_in(module), tuple(x.clone() for x in example)
        with _torch_silent(), torch.no_grad(), undisturbed(module), _shapes_known(), _same_shapes():
            shapes = _dynamic(own, given, batch)
            program = torch.export.export(own, given, dynamic_shapes=shapes)
    except Exception as error:
        raise _uncaptured(module, example, error) from error
    # Outside the try: its errors name the context already.
    see_through(program.graph_module)
    return program


def _dynamic(module: nn.Module, example: tuple[Tensor, ...], batch: object) -> dict[str, object]:
    """Return the dynamic axes in the form of the signature of ``forward``."""
    bound = inspect.signature(module.forward).bind(*example)

    def axes(value: object) -> object:
        if isinstance(value, tuple):
            return tuple(axes(item) for item in value)
        open_axis = isinstance(value, Tensor) and holds_samples(value, example)
        return {0: batch} if open_axis else None

    return {name: axes(value) for name, value in bound.arguments.items()}


@contextmanager
def _torch_silent() -> Iterator[None]:
    """Silence torch, which prints a failed capture to stderr, graph included, before it raises."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _shapes_known() -> Iterator[None]:
    """Register the shape rule of fake quantisation, which torch lacks."""
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    name = "fake_quantize_per_tensor_affine_cachemask"
    try:
        library.impl(name, _quantised, "Meta")  # type: ignore[no-untyped-call]
        yield
    finally:
        library._destroy()  # type: ignore[no-untyped-call]


_SAME_SHAPE = (torch.ops.aten.hardtanh.default, torch.ops.aten.hardtanh_.default)


@contextmanager
def _same_shapes() -> Iterator[None]:
    """State the shape of a bounded value (ReLU6), which torch derives by many small steps.

    That takes a quarter of the time of a trace of MobileNetV2.
    """
    own = {key: decomposition_table[key] for key in _SAME_SHAPE if key in decomposition_table}
    for key, rule in own.items():
        decomposition_table[key] = partial(_bounded, key, rule)
    try:
        yield
    finally:
        for key, rule in own.items():
            decomposition_table[key] = rule


def _bounded(
    operator: Any, rule: Callable[..., Tensor], x: Tensor, *args: Any, **named: Any
) -> Tensor:
    if isinstance(x, FakeTensor) and x.is_floating_point():
        return x if operator._schema.is_mutable else torch.empty_like(x)
    return rule(x, *args, **named)


def _quantised(x: Tensor, *_numbers: object) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)


def _uncaptured(
    module: nn.Module, example: tuple[Tensor, ...], error: Exception
) -> UntraceableModel:
    """Return the error for a failed trace: the network rejects the example, or export cannot
    follow.
    """
    try:
        with torch.no_grad(), undisturbed(module), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            copied(module).eval()(*(x.clone() for x in example))
    except Exception as plain:
        if _only_one_sample_runs(module, example):
            return UntraceableModel(
                f"{type(module).__name__} runs on the example's one sample, but not on two copies "
                f"of it, shape {_shapes(example)}: {_message_of(plain)}",
                remedy="An example of one sample is doubled, because size 1 would become a "
                "constant. Accept any batch size; with two or more samples, an input of another "
                "length (a prior, a scale) is not taken for a batch.",
            )
        return does_not_run(module, example, plain)
    return not_captured(module, error)


def not_captured(module: nn.Module, error: Exception) -> UntraceableModel:
    """Return the error for a network that torch.export, or the reading of its graph, cannot
    follow.
    """
    name, message = type(module).__name__, _message_of(error)
    derived = _derived(error)
    if derived is not None:
        return derived
    if "vmap" in message:
        return UntraceableModel(
            f"{name} maps a function over the batch (torch.vmap, or torch.func.jacrev, which uses "
            "it), which prunec cannot trace.",
            remedy="Pass the whole batch to the function: operators take it as their first axis.",
        )
    return UntraceableModel(
        f"torch.export could not capture {name} with any batch size: {message}{place_of(error)}",
        remedy="Make the forward pass free of data-dependent Python and literal batch sizes; "
        "`torch.export.export(model, example)` shows the line.",
    )


def does_not_run(
    module: nn.Module, example: tuple[Tensor, ...], error: Exception
) -> UntraceableModel:
    """Return the error for a network that fails on its example."""
    derived = _derived(error)
    if derived is not None:
        return derived
    name, shapes = type(module).__name__, _shapes(example)
    return UntraceableModel(
        f"{name} does not run on inputs of shape {shapes}: {_message_of(error)}{place_of(error)}",
        remedy="Pass inputs in the order and shapes that its forward takes.",
    )


_DERIVATIVES: Mapping[str, frozenset[str]] = {
    "_functorch/eager_transforms.py": frozenset("jvp vjp jacrev jacfwd hessian linearize".split()),
    "_functorch/apis.py": frozenset(("grad", "grad_and_value")),
    "autograd/__init__.py": frozenset(("grad", "backward")),
}  # torch source file → its functions that take derivatives


def _derived(error: BaseException) -> UntraceableModel | None:
    """Return the error for a network that takes derivatives in forward; None for other causes."""
    function = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name = frame.f_code.co_qualname.partition(".")[0]
        for file, functions in _DERIVATIVES.items():
            if frame.f_code.co_filename.endswith(file) and name in functions:
                room = "torch.autograd" if file.startswith("autograd") else "torch.func"
                function = function or f"{room}.{name}"
    return derivatives(function, place_of(error)) if function else None


def place_of(error: BaseException) -> str:
    """Return the line of the network's own code that raised an error, in words; empty if
    unknown.
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        # The innermost line that belongs neither to torch nor to prunec.
        if not frame.filename.startswith(_NOT_ITS_OWN):
            return f", at {Path(frame.filename).name}:{frame.lineno} (in {frame.name})"
    return ""


_NOT_ITS_OWN = (
    str(Path(torch.__file__).parent), str(Path(__file__).parents[2]), contextlib.__file__, "<",
)  # fmt: skip


def _shapes(example: tuple[Tensor, ...]) -> str:
    return ", ".join(str(tuple(x.shape)) for x in example)


def _only_one_sample_runs(module: nn.Module, example: tuple[Tensor, ...]) -> bool:
    """Return whether the example is one doubled sample and the network accepts only one."""
    doubled = [x for x in example if x.dim() and len(x) == 2 and torch.equal(x[0], x[1])]
    if not doubled:
        return False
    single = [x[:1].clone() if any(x is y for y in doubled) else x.clone() for x in example]
    try:
        with torch.no_grad(), undisturbed(module), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            copied(module).eval()(*single)
    except Exception:
        return False
    return True


def _message_of(error: Exception) -> str:
    """Return the first line of an error message, or its first two if the first announces a list."""
    lines = [line.strip(" -") for line in str(error).strip().splitlines()]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1]) if lines else type(error).__name__
