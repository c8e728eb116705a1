"""Translation of ONNX operators for the analyses: one file per kind, one function per operator.

A function returns the node it created, or None for a call that it does not understand: the operands
of such an operator keep their channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prunec.deploy.compaction.operators import elementwise, kernels, moves, windows
from prunec.deploy.compaction.reading import Call
from prunec.graph.capture.node import Node

TRANSLATIONS: Mapping[str, Callable[[Call], Node | None]] = {
    **elementwise.TRANSLATIONS,
    **kernels.TRANSLATIONS,
    **moves.TRANSLATIONS,
    **windows.TRANSLATIONS,
}
