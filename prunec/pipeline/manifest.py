"""What the manifest says of a file that shipped, and whether it is what is read now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from prunec.artifact import Artifact
from prunec.deploy.checks import Check
from prunec.deploy.checks.records import compare_history, compare_manifest
from prunec.deploy.exporter import Exported, Exporter
from prunec.files import sha256_of
from prunec.recipe import Recipe, digest
from prunec.store.environment import prunec_version
from prunec.store.exports import STEM

UNRECORDED = {"sha256": "", "graph_digest": "", "recipe_digest": ""}
"""What the manifest lacks of a file that it says nothing of."""


def manifest_entry(
    writer: Exporter, exported: Exported, twin: Path, recipe: Recipe, artifact: Artifact
) -> dict[str, object]:
    """Return what the manifest says of a file.

    Args:
        writer: what wrote it.
        exported: the file.
        twin: the file of the network before anything was cut.
        recipe: the run's.
        artifact: what ships.
    """
    first, last = artifact.history[0], artifact.history[-1]
    costs = {"macs": last.macs[1], "params": last.params[1], "dense_macs": first.macs[0]}
    return {
        **_stated(writer, exported.path, twin, recipe, artifact),
        "sha256": exported.sha256,
        "graph_digest": exported.graph_digest,
        **costs,
        "prunec": prunec_version(),
    }


def told_of(exported: Exported) -> dict[str, object]:
    """Return what the manifest keeps of what an exporter tells of its file."""
    return {"told": dict(exported.told)} if exported.told else {}


def compare_with_records(
    writer: Exporter,
    path: Path,
    twin: Path,
    recipe: Recipe,
    artifact: Artifact,
    dense: Artifact,
    entry: Mapping[str, object],
    flaw: str,
    made_by: str,
) -> tuple[Check, Check]:
    """Return the checks that what was recorded at training and at export is what is read now.

    Args:
        writer: of the file's form.
        path: the file.
        twin: the file of the network before anything was cut.
        recipe: the run's.
        artifact: what ships; its costs are counted.
        dense: the network before anything was cut; its costs are counted.
        entry: what the manifest says of the file; empty where it says nothing.
        flaw: why the manifest cannot be believed; empty where it can.
        made_by: which other build began the run; empty where this one did.
    """
    counted = {
        "macs": artifact.cost.macs,
        "params": artifact.cost.params,
        "dense_macs": dense.cost.macs,
    }
    now = {**_stated(writer, path, twin, recipe, artifact), **counted}
    history = compare_history(artifact.history, artifact.cost, dense.cost, made_by)
    return compare_manifest(entry, now, flaw), history


def _stated(
    writer: Exporter, path: Path, twin: Path, recipe: Recipe, artifact: Artifact
) -> dict[str, object]:
    return {
        "exporter": {"name": writer.exporter_name(), **json.loads(json.dumps(asdict(writer)))},
        "file": f"{writer.form()}/{STEM}{writer.suffix}",
        "bytes": writer.size(path),
        "dense_sha256": sha256_of(twin),
        "recipe_digest": digest(recipe),
        "weights_digest": artifact.history[-1].digest,
    }
