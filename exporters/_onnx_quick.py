"""Shortcuts for repeated work in ``torch.onnx.export``, three quarters of its time.

Each export reads the source of some five hundred ONNX functions, which stay the same; it traces
every network again to decompose operators, and runs it once more to cast operands of different
types. Most convolutional networks need neither. All three shortcuts replace private functions of
torch; with a torch that lacks these functions, its own code runs.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from prunec.exporters._onnx_operators import decomposed

_HOME = "torch.onnx._internal.exporter"
_PROMOTION = "torch.onnx._internal.fx.passes.type_promotion"


@contextmanager
def quick() -> Iterator[None]:
    """Let exports inside the block reuse the functions, and trace again only if necessary."""
    with ExitStack() as stack:
        stack.enter_context(
            _replaced(f"{_HOME}._registration", "ONNXRegistry.from_torchlib", _kept)
        )
        stack.enter_context(
            _replaced(f"{_HOME}._fx_passes", "decompose_with_registry", _decomposed)
        )
        stack.enter_context(_replaced(f"{_HOME}._fx_passes", "insert_type_promotion_nodes", _cast))
        yield


@contextmanager
def _replaced(module: str, name: str, by: Callable[..., Any]) -> Iterator[None]:
    """Replace a function by ``by``, which gets the original as its first argument."""
    *path, last = name.split(".")
    try:
        home: Any = importlib.import_module(module)
        for part in path:
            home = getattr(home, part)
        # `own` is the raw attribute (a staticmethod, perhaps), to be restored as it was.
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
        with _only_domains():
            _tables[key] = read(*args, **named)
    return _tables[key]


@contextmanager
def _only_domains() -> Iterator[None]:
    """Let the functions state their domain, all that a table reads of their source, unparsed."""
    try:
        kind = importlib.import_module("onnxscript._internal.values").TracedOnnxFunction
        own, short = vars(kind)["function_ir"], property(lambda self: self._opset)
    except (ImportError, AttributeError, KeyError):
        yield
        return
    kind.function_ir = short
    try:
        yield
    finally:
        kind.function_ir = own


def _decomposed(
    decompose: Callable[..., ExportedProgram], program: ExportedProgram, registry: Any
) -> ExportedProgram:
    try:
        written = _with_function(registry)
    except (ImportError, AttributeError):
        return decompose(program, registry)
    return program if decomposed(program, written) else decompose(program, registry)


@functools.lru_cache(maxsize=4)  # a registry per opset is kept
def _with_function(registry: Any) -> frozenset[Any]:
    """Return the operators with an ONNX function that torch does not decompose first."""
    home = importlib.import_module(f"{_HOME}._decomp")
    written = set(home.get_onnx_implemented_overloads(registry))
    return frozenset(written.difference(home.create_onnx_friendly_decomposition_table(written)))


def _cast(insert: Callable[[GraphModule], None], module: GraphModule) -> None:
    if not alike(module):
        insert(module)


def alike(module: GraphModule) -> bool:
    """Return whether torch's type promotion leaves every operand unchanged."""
    try:
        home = importlib.import_module(_PROMOTION)
        rule_of, table = home.get_type_promotion_rule, home.TypePromotionTable()
        rules = {node: rule_of(node, table) for node in module.graph.nodes}
        return len(list(module.modules())) == 1 and not any(
            rule and _promotes(rule, node) for node, rule in rules.items()
        )
    except (ImportError, AttributeError, KeyError):
        return False


def _promotes(rule: Any, node: Node) -> bool:
    """Return whether a rule changes the type of an operand or of the result."""
    args, kwargs = map_arg((node.args, dict(node.kwargs)), lambda operand: operand.meta["val"])
    types = rule.preview_type_promotion(args, kwargs)
    given = [(args[place], kind) for place, kind in types.args_dtypes.items() if place < len(args)]
    given += [(kwargs[name], kind) for name, kind in types.kwargs_dtypes.items() if name in kwargs]
    given.append((node.meta["val"], types.out_dtype))
    return not all(_has(value, kind) for value, kind in given)


def _has(value: Any, kind: torch.dtype | None) -> bool:
    """Return whether an operand has the required type; of numbers only fp32 is certain."""
    if isinstance(value, list | tuple):
        return all(_has(one, kind) for one in value)
    if isinstance(value, Tensor):
        return value.dtype == kind
    return kind is None or (isinstance(value, float) and kind == torch.float32)
