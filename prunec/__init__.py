"""prunec compiles and exports sparse convolutional networks: train, cut, prove, ship.

The public functions are those of :mod:`prunec.api`; torch is imported when one is first used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

# In a checkout passes/, exporters/ and recipes/ stand beside this folder, and Python that is
# started there finds this folder before the installed package: let it find them too.
_CHECKOUT = Path(__file__).parent.parent
if (_CHECKOUT / "passes" / "__init__.py").is_file() and str(_CHECKOUT) not in __path__:
    __path__.append(str(_CHECKOUT))

if TYPE_CHECKING:
    __version__: str
    from prunec.api import (
        ChannelGroup,
        Compiled,
        CompileReport,
        Cost,
        Folded,
        Plan,
        PrunecError,
        Report,
        compile,
        count,
        count_onnx,
        export_onnx,
        fold_batch_norms,
        groups,
        verify,
        verify_run,
    )

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
    "verify",
    "verify_run",
]


if not TYPE_CHECKING:  # or a type checker would take every name for one of ours

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from prunec.store.environment import prunec_version

            return prunec_version()
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from prunec import api

        return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
