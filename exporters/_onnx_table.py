"""Torch's table of ONNX functions, kept from one export to the next.

``torch.onnx.export`` reads the source of some five hundred functions at every call, which is half
of the time that a small network takes. Nobody adds to the table here: no translation is given.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_HOME = "torch.onnx._internal.exporter._registration"


@contextmanager
def table_kept() -> Iterator[None]:
    """Let exports inside take the table of the one before; with another torch, read it as ever."""
    try:
        registry = importlib.import_module(_HOME).ONNXRegistry
        own, read = vars(registry)["from_torchlib"], registry.from_torchlib
    except (ImportError, AttributeError, KeyError):
        yield
        return
    registry.from_torchlib = staticmethod(functools.partial(_kept, read))
    try:
        yield
    finally:
        registry.from_torchlib = own


_tables: dict[tuple[Any, ...], Any] = {}


def _kept(read: Callable[..., Any], *args: Any, **named: Any) -> Any:
    key = (*args, *sorted(named.items()))
    if key not in _tables:
        _tables[key] = read(*args, **named)
    return _tables[key]
