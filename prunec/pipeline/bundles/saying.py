"""What a bundle's manifest says: what ships, how it came about, what it is worth, how it is fed."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnx

from prunec.artifact import Artifact
from prunec.deploy.checks import ExportReport, Report
from prunec.deploy.exporter import Exact, Exporter
from prunec.files import sha256_of
from prunec.pipeline.bundles.layout import SCHEMA
from prunec.pipeline.feeding import feeding
from prunec.pipeline.opened import OpenedRun
from prunec.pipeline.splits import splits
from prunec.recipe import digest
from prunec.store.environment import PACKAGES, build, environment
from prunec.store.runs import RunFolder

Z = 1.959964
"""Of a normal distribution: 95 % lie within it."""


def said_of(
    run: RunFolder, opened: OpenedRun, artifact: Artifact, report: ExportReport, layout: str = ""
) -> dict[str, Any]:
    """Return what the manifest says of the network, whatever its form.

    Args:
        run: an exported run.
        opened: the same, opened.
        artifact: what ships.
        report: what the export found.
        layout: of images as bytes that the files take; empty: they take numbers.
    """
    recipe, machine = opened.recipe, environment()
    first, last = artifact.history[0], artifact.history[-1]
    trained = artifact.history[opened.trained - 1].digest if opened.trained else ""
    stated = recipe.bundle
    return {
        "schema": SCHEMA,
        "name": recipe.name,
        "release": stated.release,
        "replaces": stated.replaces,
        "licence": stated.licence,
        "intended_use": stated.intended_use,
        "recipe_digest": digest(recipe),
        "history": [asdict(replace(step, seconds=0.0)) for step in artifact.history],
        "weights_digest": last.digest,
        "parent": {"checkpoint": _checkpoint(recipe.model.weights), "trained_weights": trained},
        "data": splits(opened.images, recipe.data.name),
        "macs": last.macs[1],
        "params": last.params[1],
        "dense_macs": first.macs[0],
        "dense_params": first.params[0],
        "budgets": recipe.verify.budget.model_dump(mode="json"),
        "feeding": feeding(recipe, artifact, opened.images, layout),
        "made_with": {
            "prunec": machine["prunec"],
            "build": build(),
            **{package: machine[package] for package in PACKAGES},
        },
        "tested_on": {"machine": platform.machine(), "processor": machine["cpu"]},
    }


def said_of_form(
    run: RunFolder, writer: Exporter, report: Report, tolerance: float
) -> dict[str, Any]:
    """Return what the manifest says of a form: its file, its proof, what ran it.

    Args:
        run: an exported run.
        writer: of the form.
        report: what the export found of its file.
        tolerance: how far its answers may lie from the golden ones, as a share of their largest.
    """
    path = run.export.shipped(writer.form(), writer.suffix)
    recorded, details = run.export.recorded[writer.form()], report.details
    runners = [asdict(one) for one in (details.runner, *details.other_runners) if one]
    return {
        "file": f"{writer.form()}/{path.name}",
        **{key: recorded[key] for key in ("sha256", "graph_digest", "bytes", "exporter")},
        **_versions(path),
        "exact": isinstance(writer, Exact),
        "told": recorded.get("told", {}),
        "tolerance": tolerance,
        "metrics": _metrics(details.figures, details.samples),
        "checks": [check.name for check in report.checks],
        "not_checked": list(details.not_checked),
        "runners": runners,
    }


def interval(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's interval of a share of a count, 95 %."""
    centre = share + Z * Z / (2 * count)
    width = Z * math.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    scale = 1 + Z * Z / count
    return max(0.0, (centre - width) / scale), min(1.0, (centre + width) / scale)


def _metrics(figures: Mapping[str, float], samples: int | None) -> list[dict[str, Any]]:
    """Every figure in percent, with the number of samples; of accuracies, their interval."""
    found = []
    for key, value in sorted(figures.items()):
        known = key == "accuracy" and samples
        low, high = interval(value / 100, samples) if known and samples else (None, None)
        ends = None if low is None or high is None else [round(100 * low, 3), round(100 * high, 3)]
        found.append({"name": key, "percent": value, "samples": samples, "interval_95": ends})
    return found


def _versions(path: Path) -> dict[str, Any]:
    """The operators' version and the layout's of an ONNX file, as it was written."""
    if path.suffix != ".onnx":
        return {}
    model = onnx.load(path, load_external_data=False)
    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    return {"opset": opsets, "ir_version": model.ir_version}


def _checkpoint(weights: str) -> dict[str, str] | None:
    """The weights that the recipe begins with: their name without folders, a file's sha256."""
    if not weights:
        return None
    file, mark, entry = weights.partition("::")
    return {"name": f"{Path(file).name}{mark}{entry}", "sha256": sha256_of(Path(file))}
