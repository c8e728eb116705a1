"""Contents of a bundle's manifest: network, provenance, metrics, preparation of its inputs."""

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
"""The 0.975 quantile of the standard normal distribution: 95 % lie within ±Z."""


def said_of(
    run: RunFolder, opened: OpenedRun, artifact: Artifact, report: ExportReport, layout: str = ""
) -> dict[str, Any]:
    """Return the part of the manifest that is common to all forms.

    Args:
        run: an exported run.
        opened: the same run, opened.
        artifact: the artifact that ships.
        report: report of the export.
        layout: ``nhwc`` or ``nchw`` where the files take uint8 images; empty for float inputs.
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
        # times would differ from export to export
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
    """Return the manifest's entry of a form: file, checks, metrics, runners.

    Args:
        run: an exported run.
        writer: exporter of the form.
        report: report on its file.
        tolerance: largest difference from the golden outputs, relative to their largest value.
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
    """Return the 95 % Wilson score interval of a share observed over ``count`` samples.

    E. B. Wilson, JASA 22 (1927): (p + z²/2n ± z·√(p(1 − p)/n + z²/4n²)) / (1 + z²/n).
    """
    # Wilson 1927 (J. Am. Stat. Assoc. 22): unlike share ± Z·σ it stays within 0…1.
    centre = share + Z * Z / (2 * count)
    width = Z * math.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    scale = 1 + Z * Z / count
    return max(0.0, (centre - width) / scale), min(1.0, (centre + width) / scale)


def _metrics(figures: Mapping[str, float], samples: int | None) -> list[dict[str, Any]]:
    """Return every figure in percent, with the number of samples; accuracy with its interval."""
    metrics = []
    for key, value in sorted(figures.items()):
        # mIoU is no share of independent samples, so Wilson's interval does not apply.
        known = key == "accuracy" and samples
        low, high = interval(value / 100, samples) if known and samples else (None, None)
        ends = None if low is None or high is None else [round(100 * low, 3), round(100 * high, 3)]
        metrics.append({"name": key, "percent": value, "samples": samples, "interval_95": ends})
    return metrics


def _versions(path: Path) -> dict[str, Any]:
    """Return opsets and IR version of an ONNX file; nothing for other files."""
    if path.suffix != ".onnx":
        return {}
    model = onnx.load(path, load_external_data=False)
    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    return {"opset": opsets, "ir_version": model.ir_version}


def _checkpoint(weights: str) -> dict[str, str] | None:
    """Return name (without folders) and sha256 of the weights that the recipe starts from."""
    if not weights:
        return None
    file, mark, entry = weights.partition("::")
    return {"name": f"{Path(file).name}{mark}{entry}", "sha256": sha256_of(Path(file))}
