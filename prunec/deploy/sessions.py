"""Conversion of data from onnxruntime sessions, local or on a device."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from prunec.deploy.runner import LayerTime

_KERNEL = "_kernel_time"
_TYPES = {"float": "float32", "double": "float64"}
"""onnxruntime's type names that differ from numpy's."""


def numpy_type(name_in_onnxruntime: str) -> np.dtype[Any]:
    """Return the numpy type of an onnxruntime type: ``tensor(int64)`` is int64."""
    name = name_in_onnxruntime.removeprefix("tensor(").rstrip(")")
    return np.dtype(_TYPES.get(name, name))


def layer_times(events: Iterable[Mapping[str, Any]]) -> list[LayerTime]:
    """Return one layer per node of onnxruntime's profile; each node's first run is a warm-up.

    Args:
        events: events of the profile; kernels have category ``Node``, a duration in microseconds
            and a name that ends in ``_kernel_time``.
    """
    durations: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_KERNEL):
            # Nodes may share a name: the index tells them apart.
            key = (str(event["args"].get("node_index", "")), name, event["args"]["op_name"])
            durations[key].append(event["dur"] / 1e3)
    return [
        LayerTime(name.removesuffix(_KERNEL), operator, statistics.median(times[1:] or times))
        for (_, name, operator), times in durations.items()
    ]
