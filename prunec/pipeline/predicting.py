"""Predictions of a file on images, prepared as its metadata or manifest says, on any runner."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor
from torchvision.transforms import v2

from prunec.batches.transforms import build_normalisation, build_transform, try_transform
from prunec.catalogue import runner_by
from prunec.datasets.decoding import decode
from prunec.deploy.runner import LoadedFile
from prunec.deploy.signature import FEEDING, metadata_of
from prunec.errors import DataError, PrunecError, RunError
from prunec.files import near_file
from prunec.models.raw_images import AsBytes
from prunec.pipeline.bundles.reading import is_bundle, opened_bundle
from prunec.pipeline.raw_images import layout_of
from prunec.store.exports import ExportFolder
from prunec.store.runs import RunFolder

MOST_SIZE = 10_000
"""Largest argument of a transform in a file's metadata: a foreign file must not fill the memory."""
_AGAIN = "Export it again: its manifest and metadata then describe its inputs."


@dataclass(frozen=True)
class Answer:
    """Prediction for an image.

    Attributes:
        image: path of the image.
        best: (label, softmax probability) of the classes of the highest scores, best first.
        remark: preparation of the image beyond that of test images; empty for none.
    """

    image: str
    best: tuple[tuple[str, float], ...]
    remark: str = ""


def predict(
    path: Path, images: Sequence[Path], form: str = "", most: int = 5, runner: str = ""
) -> list[Answer]:
    """Classify images with an exported file.

    Args:
        path: an exported file, a bundle, or a run's folder.
        images: image files.
        form: form of a bundle or a run; empty for ONNX, or its first.
        most: classes per image.
        runner: name of the runner; empty for the first here that opens the file.

    Raises:
        DataError: an image cannot be read, or the file does not classify images.
        RunError: there is no such file, or its inputs are not described.
        PrunecError: no runner here opens it, or it does not run.
    """
    with _located(path, form) as (file, fed):
        _require_images(fed, path)
        loaded = runner_by(runner, file.suffix).open(file)
        return [_answer(loaded, fed, image, most) for image in images]


@contextmanager
def _located(path: Path, form: str) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yield the file to run, and the description of its inputs."""
    if not path.exists():
        raise RunError(f"there is no file {path}", remedy=near_file(path).strip())
    if is_bundle(path):
        with opened_bundle(path) as bundle:
            chosen = _chosen(form, list(bundle.forms), path)
            yield bundle.folder / bundle.forms[chosen]["file"], bundle.said["feeding"]
    elif path.is_dir():
        yield _of_run(RunFolder(path).export, form, path)
    else:
        yield path, _of_file(path)


def _chosen(form: str, forms: Sequence[str], path: Path) -> str:
    """Return the form asked for; by default ONNX, or else the first."""
    if not forms or (form and form not in forms):
        raise RunError(
            f"{path} has no form {form}".rstrip(),
            remedy=f"It has {', '.join(forms)}." if forms else f"Export it: prunec export {path}",
        )
    return form or ("onnx" if "onnx" in forms else forms[0])


def _of_run(export: ExportFolder, form: str, path: Path) -> tuple[Path, Mapping[str, Any]]:
    recorded = export.recorded
    said = recorded[_chosen(form, list(recorded), path)]
    return export.path / str(said["file"]), _feeding(said.get("feeding"), path)


def _of_file(path: Path) -> Mapping[str, Any]:
    """Return the description of inputs in an ONNX file, or for another form in its manifest."""
    if path.suffix == ".onnx":
        try:
            text = metadata_of(onnx.load(path, load_external_data=False)).get(FEEDING, "null")
            return _feeding(json.loads(text), path)
        except (ValueError, RecursionError, OSError) as error:
            raise RunError(f"{path} cannot be read: {str(error)[:200]}") from None
        except Exception as error:  # protobuf's own, of no common kind
            if isinstance(error, PrunecError):
                raise
            raise RunError(f"{path} is not an ONNX file: {str(error)[:200]}") from None
    folder = path.resolve().parent
    if is_bundle(folder.parent):
        with opened_bundle(folder.parent) as bundle:
            return _feeding(bundle.said["feeding"], path)
    entry = ExportFolder(folder.parent).recorded.get(folder.name, {})
    return _feeding(entry.get("feeding"), path)


def _feeding(said: object, path: Path) -> Mapping[str, Any]:
    if not isinstance(said, dict):
        raise RunError(f"{path} does not describe its inputs", remedy=_AGAIN)
    return said


def _require_images(fed: Mapping[str, Any], path: Path) -> None:
    inputs = fed.get("inputs")
    shape = inputs[0].get("shape") if isinstance(inputs, list) and len(inputs) == 1 else None
    whole = isinstance(shape, list) and all(isinstance(size, int) for size in shape)
    if fed.get("kind") != "image" or not whole or len(shape or ()) != 3:
        raise DataError(f"{path} is not known to take an image: {fed.get('how_to_feed', '')}")
    # The metadata are a stranger's: Resize(10**9) would be carried out.
    for table in fed["prepare"]:
        if _largest(table) > MOST_SIZE:
            raise DataError(f"{path}: an argument of {table.get('name')} exceeds {MOST_SIZE:,}")


def _largest(value: object) -> float:
    match value:
        case dict():
            return max(map(_largest, value.values()), default=0)
        case list():
            return max(map(_largest, value), default=0)
        case int() | float():
            return abs(value)
    return 0


def _answer(loaded: LoadedFile, fed: Mapping[str, Any], image: Path, most: int) -> Answer:
    given, remark = _prepared(fed, image)
    scores = next(iter(loaded.run([[given.numpy()]])))[0]
    if scores.ndim != 2:
        raise DataError(
            f"the first output has the shape {scores.shape}: it does not classify images",
            remedy="Only classification is supported.",
        )
    shares = torch.softmax(torch.from_numpy(scores[0].astype(np.float64)), 0)
    labels = fed.get("labels") or []
    best = torch.topk(shares, min(most, len(shares)))
    named = [
        (str(labels[i]) if i < len(labels) else str(i), float(share))
        for share, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
    return Answer(str(image), tuple(named), remark)


def _prepared(fed: Mapping[str, Any], path: Path) -> tuple[Tensor, str]:
    """Return an image as the file takes it, [1, C, H, W] or as bytes, and a remark on resizing.

    Raises:
        DataError: it cannot be read.
    """
    try:
        image = decode(path.read_bytes(), str(path))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"{path} cannot be read: {reason}") from None
    shape = fed["inputs"][0]["shape"]
    channels, *size = (shape[-1], *shape[:-1]) if layout_of({"feeding": fed}) == "nhwc" else shape
    remarks = []
    # Before `prepare`: its transforms see the channels that the network gets.
    if channels == 1:
        image = v2.functional.rgb_to_grayscale(image)
    image = try_transform(build_transform(fed["prepare"], "prepare"), image, "prepare")
    if list(image.shape[1:]) != size:
        remarks.append(f"resized from {_size(image.shape[1:])} to {_size(size)}")
        image = v2.functional.resize(image, size, antialias=True)
    if layout := layout_of({"feeding": fed}):
        return AsBytes(layout)(image)[None], ", ".join(remarks)
    normalised = build_normalisation(fed["mean"], fed["std"], channels)(image)
    return normalised[None], ", ".join(remarks)


def _size(sizes: Sequence[int]) -> str:
    return "×".join(map(str, sizes))
