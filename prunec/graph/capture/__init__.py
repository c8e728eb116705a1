"""Capture: from a torch network to a functional graph of nodes with known shapes."""

from __future__ import annotations

from prunec.graph.capture.captured import Captured
from prunec.graph.capture.node import Node
from prunec.graph.capture.other_lengths import insist
from prunec.graph.capture.reader import capture, uncollected

__all__ = ["Captured", "Node", "capture", "insist", "uncollected"]
