"""What ``torch.onnx.export`` does at every call though it need not: three quarters of its time.

It reads the source of some five hundred ONNX functions, which stay the same, and it traces every
network a second time to take its operators apart, which most convolutional networks do not need.
Both are done through names that torch keeps to itself: with a torch that has others, they are done
as torch does them.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch.export import ExportedProgram

from prunec.exporters._onnx_operators import decomposed

_HOME = "torch.onnx._internal.exporter"


@contextmanager
def quick() -> Iterator[None]:
    """Let exports inside take the functions of the one before, and trace again only if needed."""
    with ExitStack() as stack:
        stack.enter_context(
            _replaced(f"{_HOME}._registration", "ONNXRegistry.from_torchlib", _kept)
        )
        stack.enter_context(
            _replaced(f"{_HOME}._fx_passes", "decompose_with_registry", _decomposed)
        )
        yield


@contextmanager
def _replaced(module: str, name: str, by: Callable[..., Any]) -> Iterator[None]:
    """Put a function that is given the original first in its place."""
    *path, last = name.split(".")
    try:
        home: Any = importlib.import_module(module)
        for part in path:
            home = getattr(home, part)
        own, original = vars(home)[last], getattr(home, last)
    except (ImportError, AttributeError, KeyError):
        yield
        return
    instead = functools.partial(by, original)
    setattr(home, last, staticmethod(instead) if path else instead)
    try:
        yield
    finally:
        setattr(home, last, own)


_tables: dict[tuple[Any, ...], Any] = {}


def _kept(read: Callable[..., Any], *args: Any, **named: Any) -> Any:
    key = (*args, *sorted(named.items()))
    if key not in _tables:
        _tables[key] = read(*args, **named)
    return _tables[key]


def _decomposed(
    decompose: Callable[..., ExportedProgram], program: ExportedProgram, registry: Any
) -> ExportedProgram:
    try:
        home = importlib.import_module(f"{_HOME}._decomp")
        written = set(home.get_onnx_implemented_overloads(registry))
        apart = home.create_onnx_friendly_decomposition_table(written)
    except (ImportError, AttributeError):
        return decompose(program, registry)
    done = decomposed(program, written.difference(apart))
    return program if done else decompose(program, registry)
