"""Layout of a bundle: onnxruntime's model package, with prunec's section as additional metadata.

manifest.json              one component per form, and `additional_metadata.prunec`
check.py                   checks the bundle with only numpy and a runtime
model.sig                  signature of every other file, if a key was given
bom.cdx.json               CycloneDX bill of materials, on request
golden/input_0.npy         real samples, as the network takes them
golden/output_0.npy        outputs of the trained network
golden/FORM/output_0.npy   outputs of the file of a lossy form, on the machine that made it
golden/layers/FORM/…       intermediate values of the first sample, on request
FORM/layers.onnx           copy of an ONNX or LiteRT file with these values as outputs
FORM/model.…               the exported files
c/model.c, c/model-….so    native code and its library, on request; prunec does not run them
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

SCHEMA = 1
"""Version of `additional_metadata.prunec`; a reader refuses any other."""
PACKAGE_SCHEMA = "1.0"
"""Version of onnxruntime's model package."""
MANIFEST = "manifest.json"
CHECK = "check.py"
SIGNATURE = "model.sig"
"""Name of the signature, the only undeclared file: it also signs the manifest."""
BOM = "bom.cdx.json"
NAME = "bundle"
"""Name of the folder in a signature."""
GOLDEN = "golden"
LAYERS = "layers"
"""Stem of the copy beside a form's file, and name of the folder with the values between layers."""
KEY = "prunec"
LOSSY_TOLERANCE = 0.05
"""Largest difference between a lossy file's outputs here and on the machine that made it.

Relative to an output's largest value: integer kernels round differently on another processor.
"""
_ONNXRUNTIME = (".onnx", ".ort")
_RESERVED = frozenset({"con", "prn", "aux", "nul"})  # device names on Windows
_FORBIDDEN = frozenset('\\:*?"<>|')


def name_flaw(name: str) -> str:
    """Return what is wrong with the name of a bundle's file; empty for a valid name.

    A valid name is relative, of plain parts separated by single slashes, and stays in the folder on
    every operating system.
    """
    parts = name.split("/")
    # 200: file systems allow 255 bytes, and a folder comes before the name
    if not name or len(name) > 200:
        return "has no name, or one of more than 200 characters"
    if name.startswith("/") or any(part in ("", ".", "..") for part in parts):
        return "leaves the folder, or is not a plain relative path"
    if any(ord(c) < 32 or ord(c) == 127 or c in _FORBIDDEN for c in name):
        return "has a character that is not allowed in a name"
    # Windows drops final dots and spaces, so two names could be one file there.
    if any(part != part.rstrip(". ") or part.split(".")[0].lower() in _RESERVED for part in parts):
        return "is not a valid name on every system"
    return ""


def model_package(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole manifest; everything beside prunec's section follows from that section.

    Args:
        said: prunec's section, with its digest.
    """
    forms = said["forms"]
    return {
        "schema_version": PACKAGE_SCHEMA,
        "package_name": said.get("name"),
        # The format requires a version: without a release, a digest, which no other bundle has.
        "package_version": said.get("release") or str(forms[min(forms)].get("sha256"))[:12],
        "components": _components(forms),
        "additional_metadata": {KEY: said},
    }


def _components(forms: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the components of the model package: one per form, each with one variant."""
    return {form: {"variants": {form: _variant(form, str(said["file"]))}} for form, said in
            sorted(forms.items())}  # fmt: skip


def _variant(form: str, file: str) -> dict[str, Any]:
    name = PurePosixPath(file).name
    if name.endswith(_ONNXRUNTIME):
        ours = {"ep": "CPUExecutionProvider", "executor_info": {"ort": {"model_file": name}}}
    else:
        ours = {"executor_info": {form: {"model_file": name}}}
    return {"variant_directory": form, **ours}
