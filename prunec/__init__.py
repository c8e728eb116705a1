"""prunec compiles and exports sparse convolutional networks: train, cut, prove, ship.

The public functions are those of :mod:`prunec.api`. Each is imported when it is first used, because
torch takes seconds to import.
"""

from __future__ import annotations

import random
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

# In a checkout, passes/, exporters/ and recipes/ are siblings of this folder, and Python started
# there imports this folder instead of the installed package: the siblings must be importable too.
_CHECKOUT = Path(__file__).parent.parent
if (_CHECKOUT / "passes" / "__init__.py").is_file() and str(_CHECKOUT) not in __path__:
    __path__.append(str(_CHECKOUT))

if TYPE_CHECKING:
    from prunec.api.compiling import Compiled, Folded, compile, fold_batch_norms, groups
    from prunec.api.counting import count
    from prunec.api.native import load_native
    from prunec.api.shipping import export_onnx, verify, verify_run
    from prunec.cost import Cost
    from prunec.cost.onnx_graph import count_onnx
    from prunec.deploy.checks import Report
    from prunec.errors import PrunecError
    from prunec.graph.channels.groups import ChannelGroup
    from prunec.graph.rewriting.plan import Plan
    from prunec.inspection.compile_report import CompileReport

    __version__: str

__all__ = [
    "ChannelGroup",
    "CompileReport",
    "Compiled",
    "Cost",
    "Folded",
    "Plan",
    "PrunecError",
    "Report",
    "compile",
    "count",
    "count_onnx",
    "export_onnx",
    "fold_batch_norms",
    "groups",
    "load_native",
    "verify",
    "verify_run",
]


if not TYPE_CHECKING:  # a type checker would accept any name because of __getattr__
    _COMPILING, _SHIPPING = "prunec.api.compiling", "prunec.api.shipping"
    _HOMES = {
        "ChannelGroup": "prunec.graph.channels.groups",
        "CompileReport": "prunec.inspection.compile_report",
        "Compiled": _COMPILING,
        "Cost": "prunec.cost",
        "Folded": _COMPILING,
        "Plan": "prunec.graph.rewriting.plan",
        "PrunecError": "prunec.errors",
        "Report": "prunec.deploy.checks",
        "compile": _COMPILING,
        "count": "prunec.api.counting",
        "count_onnx": "prunec.cost.onnx_graph",
        "export_onnx": _SHIPPING,
        "fold_batch_norms": _COMPILING,
        "groups": _COMPILING,
        "load_native": "prunec.api.native",
        "verify": _SHIPPING,
        "verify_run": _SHIPPING,
    }

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from prunec.store.environment import prunec_version

            return prunec_version()
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        state = random.getstate()  # some libraries draw random numbers when they are imported
        try:
            return getattr(import_module(_HOMES[name]), name)
        finally:
            random.setstate(state)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
