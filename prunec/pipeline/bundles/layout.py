"""The layout of a bundle: onnxruntime's model package, with ours under additional metadata.

manifest.json              a component for every form, and `additional_metadata.prunec`
check.py                   checks the bundle with numpy and a runtime alone
model.sig                  signs every other file, where a key was given
bom.cdx.json               CycloneDX's bill of materials, on request
golden/input_0.npy         real samples, as the network takes them
golden/output_0.npy        what the trained network answered
golden/FORM/output_0.npy   what the file of a lossy form answered where it was made
golden/layers/FORM/…       values between the layers of the first sample, on request
FORM/layers.onnx           a copy of the file that gives them all
FORM/model.…               the files that ship
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

SCHEMA = 1
"""Of `additional_metadata.prunec`: a later one is refused by name."""
PACKAGE_SCHEMA = "1.0"
"""Of onnxruntime's model package."""
MANIFEST = "manifest.json"
CHECK = "check.py"
SIGNATURE = "model.sig"
"""The one file that the manifest does not declare: it signs the manifest, too."""
BOM = "bom.cdx.json"
NAME = "bundle"
"""What a signature calls the folder."""
GOLDEN = "golden"
KEY = "prunec"
LOSSY_TOLERANCE = 0.05
"""How far a lossy file's answers may lie from those that it gave where it was made.

As a share of an output's largest value: integers round otherwise on another processor.
"""
_ONNXRUNTIME = (".onnx", ".ort")
_RESERVED = frozenset({"con", "prn", "aux", "nul"})
_FORBIDDEN = frozenset('\\:*?"<>|')


def name_flaw(name: str) -> str:
    """Return what is wrong with the name of a bundle's file; empty where nothing is.

    A name is relative, of plain parts with single slashes between, and stays in the folder on every
    system.
    """
    parts = name.split("/")
    if not name or len(name) > 200:
        return "has no name, or one of more than 200 characters"
    if name.startswith("/") or any(part in ("", ".", "..") for part in parts):
        return "leaves the folder, or is not written plainly"
    if any(ord(c) < 32 or ord(c) == 127 or c in _FORBIDDEN for c in name):
        return "holds a character that a name may not hold"
    if any(part != part.rstrip(". ") or part.split(".")[0].lower() in _RESERVED for part in parts):
        return "is no name on every system"
    return ""


def model_package(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole manifest of which ``said`` is ours: all else in it follows from that.

    Args:
        said: ours, with its digest: name, release and the file of every form.
    """
    forms = said["forms"]
    return {
        "schema_version": PACKAGE_SCHEMA,
        "package_name": said.get("name"),
        "package_version": said.get("release") or str(forms[min(forms)].get("sha256"))[:12],
        "components": _components(forms),
        "additional_metadata": {KEY: said},
    }


def _components(forms: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The components of the model package: one for every form, each with one variant."""
    return {form: {"variants": {form: _variant(form, str(said["file"]))}} for form, said in
            sorted(forms.items())}  # fmt: skip


def _variant(form: str, file: str) -> dict[str, Any]:
    name = PurePosixPath(file).name
    if name.endswith(_ONNXRUNTIME):
        ours = {"ep": "CPUExecutionProvider", "executor_info": {"ort": {"model_file": name}}}
    else:
        ours = {"executor_info": {form: {"model_file": name}}}
    return {"variant_directory": form, **ours}
