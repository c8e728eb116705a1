"""Execution of a recipe: training passes, rewrites, export, proof.

No pass is known here by name: the pipeline runs the passes that the recipe names, saves the
artifact after each, and does not ship a file that is not equal to the last artifact.
"""

from __future__ import annotations

from prunec.pipeline.bundles.elsewhere import verify_bundle_on
from prunec.pipeline.bundles.reading import is_bundle, opened_bundle
from prunec.pipeline.bundles.verifying import verify_bundle
from prunec.pipeline.bundles.writing import require_place, require_wishes, write_bundle
from prunec.pipeline.inspecting import inspect, inspect_recipe
from prunec.pipeline.predicting import predict
from prunec.pipeline.preparing import (
    Prepared,
    prepare,
    prepare_again,
    prepare_untrained,
    torch_device,
)
from prunec.pipeline.received import costs_json, inspect_received, verify_received
from prunec.pipeline.runners import runner_states
from prunec.pipeline.shipping import export, verify
from prunec.pipeline.training import train

__all__ = [
    "Prepared",
    "costs_json",
    "export",
    "inspect",
    "inspect_received",
    "inspect_recipe",
    "is_bundle",
    "opened_bundle",
    "predict",
    "prepare",
    "prepare_again",
    "prepare_untrained",
    "require_place",
    "require_wishes",
    "runner_states",
    "torch_device",
    "train",
    "verify",
    "verify_bundle",
    "verify_bundle_on",
    "verify_received",
    "write_bundle",
]
