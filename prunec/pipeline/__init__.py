"""The run of a recipe: training passes, rewrites, the file, the proof.

It knows no pass: it calls what the recipe names, saves the artifact after each, and refuses to ship
a file that is not equal to it.
"""

from __future__ import annotations

from prunec.pipeline.benching import bench
from prunec.pipeline.inspecting import inspect
from prunec.pipeline.received import costs_json, inspect_received, verify_received
from prunec.pipeline.shipping import export, verify
from prunec.pipeline.training import torch_device, train

__all__ = [
    "bench",
    "costs_json",
    "export",
    "inspect",
    "inspect_received",
    "torch_device",
    "train",
    "verify",
    "verify_received",
]
