"""Bill of materials of a bundle: CycloneDX 1.6 with its model card, as JSON.

It is computed from the manifest alone, so that the same bundle always has the same one.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from prunec.store.records import DIGEST, record_digest

# A UUID of version 5 follows from names alone, so that equal bundles have equal serial numbers.
_SPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://cyclonedx.org/prunec")
_EXPRESSION = re.compile(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*")
# `files` lists the bill itself, and the digest covers `files`: neither can be in the bill.
_NOT_IN_IT = (DIGEST, "files")
_FIGURES = ("macs", "params", "dense_macs", "dense_params", "recipe_digest", "weights_digest",
            "replaces")  # fmt: skip
_TASKS = {"image": "classification", "sequence": "classification"}


def bill(said: Mapping[str, Any]) -> bytes:
    """Return the bill of materials of a bundle, as UTF-8 JSON.

    Args:
        said: prunec's section of the manifest; its files and its digest are ignored, because the
            bill is one of the files.
    """
    known = {key: value for key, value in said.items() if key not in _NOT_IN_IT}
    release = str(said.get("release") or "")
    model = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": str(said["name"]),
        **({"version": release} if release else {}),
        **_licence(str(said.get("licence") or "")),
        "modelCard": _card(said),
        "properties": _properties(said),
    }
    forms = [_form(form, entry) for form, entry in sorted(said["forms"].items())]
    data, made_with = _data(said.get("data") or {}), dict(said.get("made_with") or {})
    # The build is a commit, not a package of PyPI.
    packages = [_package(n, str(v)) for n, v in sorted(made_with.items()) if n != "build" and v]
    components = [*forms, *data, *packages]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_SPACE, record_digest(known))}",
        "version": 1,
        "metadata": {"component": model},
        "components": components,
        "dependencies": [
            {"ref": "model", "dependsOn": sorted(c["bom-ref"] for c in components)},
            *({"ref": component["bom-ref"]} for component in components),
        ],
    }
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def _licence(licence: str) -> dict[str, Any]:
    """Return a licence as an SPDX expression where it has that form, else as a name."""
    if not licence:
        return {}
    if _EXPRESSION.fullmatch(licence):
        return {"licenses": [{"expression": licence}]}
    return {"licenses": [{"license": {"name": licence}}]}


def _card(said: Mapping[str, Any]) -> dict[str, Any]:
    feeding, use = said["feeding"], str(said.get("intended_use") or "")
    data = [{"ref": c["bom-ref"]} for c in _data(said.get("data") or {})]
    parameters = {
        "approach": {"type": "supervised"},
        "task": _TASKS.get(str(feeding.get("kind")), "inference"),
        **({"datasets": data} if data else {}),
        "inputs": [{"format": _format(one)} for one in feeding.get("inputs") or ()],
    }
    card: dict[str, Any] = {"modelParameters": parameters}
    if metrics := [m for _, e in sorted(said["forms"].items()) for m in _metrics(e)]:
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    return {**card, **({"considerations": {"useCases": [use]}} if use else {})}


def _format(one: Mapping[str, Any]) -> str:
    sizes = ", ".join(["batch", *map(str, one.get("shape") or ())])
    return f"{one.get('type')} [{sizes}] {one.get('layout') or ''}".strip()


def _metrics(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    form = str(entry["file"]).partition("/")[0]
    metrics = []
    for metric in entry.get("metrics") or ():
        one: dict[str, Any] = {
            "type": f"{metric['name']}, percent",
            "value": f"{metric['percent']:.6g}",
        }
        one["slice"] = f"{form}, {metric['samples']} test samples"
        if metric.get("interval_95"):
            low, high = metric["interval_95"]
            one["confidenceInterval"] = {"lowerBound": f"{low:g}", "upperBound": f"{high:g}"}
        metrics.append(one)
    return metrics


def _properties(said: Mapping[str, Any]) -> list[dict[str, str]]:
    known = {key: said.get(key) for key in _FIGURES}
    parent = (said.get("parent") or {}).get("checkpoint") or {}
    known |= {f"parent.{key}": value for key, value in parent.items()}
    tested = said.get("tested_on") or {}
    known |= {f"tested_on.{key}": value for key, value in tested.items()}
    return [
        {"name": f"prunec:{name}", "value": str(value)}
        for name, value in sorted(known.items())
        if value not in (None, "")
    ]


def _form(form: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "file",
        "bom-ref": f"form-{form}",
        "name": str(entry["file"]),
        "hashes": _hashes(entry.get("sha256")),
        "properties": [
            {"name": "prunec:runner", "value": f"{one['name']} {one['version']}, {one['device']}"}
            for one in entry.get("runners") or ()
        ],
    }


def _data(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one component per split of known digest."""
    digests: Mapping[str, str] = data.get("sha256") or {}
    sizes: Mapping[str, int] = data.get("samples") or {}
    return [
        {
            "type": "data",
            "bom-ref": f"data-{split}",
            "name": f"{data.get('name')}, {split} split",
            "description": f"{sizes.get(split)} samples; sha256 of {data.get('digest_of')}",
            "hashes": _hashes(digest),
        }
        for split, digest in sorted(digests.items())
    ]


def _package(name: str, version: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{version}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _hashes(digest: object) -> Sequence[dict[str, str]]:
    return [{"alg": "SHA-256", "content": str(digest)}] if digest else []
