"""Splits of a data set: sizes and digests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from prunec.batches.batches import Data, FolderData, MemoryData


def splits(data: Data | None, name: str) -> dict[str, Any]:
    """Return sizes and digests of the splits, as values of JSON.

    The digest of images in memory is over their values; that of images on disk over folder and
    file names, because reading all files may take hours.
    """
    if data is None:
        return {"name": name}
    splits = {"train": data.train_size, "test": data.test_size}
    description: dict[str, Any] = {"name": name, "samples": splits}
    if isinstance(data, MemoryData):
        pairs = ((data.train_images, data.train_labels), (data.test_images, data.test_labels))
        digests = [_sha256(*(x.contiguous().numpy().tobytes() for x in pair)) for pair in pairs]
        return {**description, "digest_of": "images and labels", **_named(digests)}
    if isinstance(data, FolderData):
        names = [
            # Class and file name: the same data set may lie in another folder.
            json.dumps([Path(s.name(i)).parts[-2:] for i in range(len(s))]).encode()
            for s in (data.train_set, data.test_set)
        ]
        return {**description, "digest_of": "names of files", **_named([_sha256(x) for x in names])}
    return description


def _named(digests: list[str]) -> dict[str, Any]:
    return {"sha256": dict(zip(("train", "test"), digests, strict=True))}


def _sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
