"""ONNX's operators in the words of the analyses: one file a kind, one function an operator.

A function returns the node that it made, or None where the call is not one that it understands:
what such an operator reads keeps its channels.
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
