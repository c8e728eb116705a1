"""Entries of the manifest: written for an exported file, and compared with it later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
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
"""Entry of a file that the manifest does not record: digests that no file has."""


def manifest_entry(
    writer: Exporter, exported: Exported, twin: Path, recipe: Recipe, artifact: Artifact
) -> dict[str, object]:
    """Return the manifest's entry of a file.

    Args:
        writer: exporter that wrote it.
        exported: the file.
        twin: path of the dense network's file.
        recipe: recipe of the run.
        artifact: the artifact that ships.
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


def follow_dense(
    manifest: dict[str, object], before: Mapping[str, str], now: Mapping[str, str]
) -> None:
    """Let entries of forms that were not exported now name the dense file that replaced theirs.

    It holds the same network: other metadata, or another opset, made another file of it.

    Args:
        manifest: form → entry; changed in place.
        before: form → digest of its dense file before the export; empty for a missing one.
        now: the same after it.
    """
    renamed: dict[object, str] = {before[form]: now[form] for form in before if before[form]}
    for form, entry in manifest.items():
        if not isinstance(entry, Mapping) or entry.get("dense_sha256") == entry.get("sha256"):
            continue  # its own file is the dense network's
        if replaced := renamed.get(entry.get("dense_sha256")):
            manifest[form] = {**entry, "dense_sha256": replaced}


def report_of(exported: Exported) -> dict[str, object]:
    """Return the exporter's report on its file, as the manifest keeps it; nothing if empty."""
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
    """Check the records of training and export against what is read and counted now.

    Args:
        writer: exporter of the file's form.
        path: the file.
        twin: path of the dense network's file.
        recipe: recipe of the run.
        artifact: the artifact that ships; it is counted anew.
        dense: the network before any cut; it is counted anew.
        entry: the manifest's entry of the file; empty where there is none.
        flaw: why the manifest cannot be trusted; empty where it can.
        made_by: the other build of prunec that started the run; empty where it was this one.

    Returns:
        The check of the manifest and the check of the history.
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
        # Through JSON, so that tuples equal the lists that are read back.
        "exporter": {"name": writer.exporter_name(), **json.loads(json.dumps(asdict(writer)))},
        "file": f"{writer.form()}/{STEM}{writer.suffix}",
        "bytes": writer.size(path),
        "dense_sha256": digest_of(writer, twin),
        "recipe_digest": digest(recipe),
        "weights_digest": artifact.history[-1].digest,
    }


def digest_of(writer: Exporter, path: Path) -> str:
    """Return the digest of a file, or of the digests of it and the files that belong to it.

    Args:
        writer: exporter of the file's form.
        path: the file; the digest of a missing one is empty.
    """
    beside = (path.with_suffix(suffix) for suffix in writer.beside)
    digests = [sha256_of(file) for file in (path, *beside) if file.is_file()]
    missing = len(digests) < 2
    return sha256_of(path) if missing else sha256(" ".join(digests).encode()).hexdigest()
