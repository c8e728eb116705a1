"""From a network to a functional graph of nodes whose shapes are known."""

from __future__ import annotations

from prunec.graph.capture.reader import Captured, capture, uncollected

__all__ = ["Captured", "capture", "uncollected"]
