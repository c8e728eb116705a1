"""Contents of a file of a run, however it is formatted, read without prunec."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper
from safetensors.numpy import load_file

_TIMES = {"seconds", "images_per_second", "checked"}
_DIGESTS = {"record_digest", "export/verified.json", "status"}
"""Files and keys that every command may write anew."""
_ELSEWHERE = ("root", "download", "workers")  # where data lie may change


def contents(path: Path, *left_out: str) -> Any:
    """Contents of a file without digests, times and keys; the error's name if it is unreadable."""
    try:
        text = path.read_bytes()
        if path.suffix == ".json":
            return _said(json.loads(text), {*left_out})
        if path.suffix == ".jsonl":
            return [_said(json.loads(line), {*left_out}) for line in text.decode().splitlines()]
        if path.suffix == ".toml":
            return _ruled(tomllib.loads(text.decode()))
        if path.suffix == ".safetensors":
            return {name: values.tobytes() for name, values in load_file(path).items()}
        return text
    except Exception as error:
        return type(error).__name__


def changed_tensors(path: Path, damaged: Path) -> set[str]:
    """Names of the tensors that are not as they were; empty where that cannot be told."""
    try:
        ours, theirs = _tensors(path), _tensors(damaged)
    except Exception:
        return set()
    return {name for name in ours if theirs.get(name) != ours[name]}


def _tensors(path: Path) -> dict[str, bytes]:
    if path.suffix == ".safetensors":
        return {name: values.tobytes() for name, values in load_file(path).items()}
    if path.suffix == ".onnx":
        stored = onnx.load_from_string(path.read_bytes()).graph.initializer
        return {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in stored}
    return {}


def _said(value: Any, left_out: set[str]) -> Any:
    if isinstance(value, dict):
        left = left_out | _TIMES | _DIGESTS
        return {key: _said(item, left_out) for key, item in value.items() if key not in left}
    return [_said(item, left_out) for item in value] if isinstance(value, list) else repr(value)


def _ruled(recipe: dict[str, Any]) -> Any:
    """A recipe but for where its data lie and on what it computes."""
    recipe = {key: value for key, value in recipe.items() if key != "device"}
    data = {key: v for key, v in recipe.get("data", {}).items() if key not in _ELSEWHERE}
    return repr({**recipe, "data": data})
