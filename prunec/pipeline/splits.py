"""The splits of a data set: their sizes and digests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from prunec.batches.batches import Data, FolderData, MemoryData


def splits(data: Data | None, name: str) -> dict[str, Any]:
    """Sizes and digests of the splits; of images on disk their names and labels are digested."""
    if data is None:
        return {"name": name}
    splits = {"train": data.train_size, "test": data.test_size}
    found: dict[str, Any] = {"name": name, "samples": splits}
    if isinstance(data, MemoryData):
        pairs = ((data.train_images, data.train_labels), (data.test_images, data.test_labels))
        digests = [_sha256(*(x.contiguous().numpy().tobytes() for x in pair)) for pair in pairs]
        return {**found, "digest_of": "images and labels", **_named(digests)}
    if isinstance(data, FolderData):
        names = [
            json.dumps([Path(s.name(i)).parts[-2:] for i in range(len(s))]).encode()
            for s in (data.train_set, data.test_set)
        ]
        return {**found, "digest_of": "names of files", **_named([_sha256(x) for x in names])}
    return found


def _named(digests: list[str]) -> dict[str, Any]:
    return {"sha256": dict(zip(("train", "test"), digests, strict=True))}


def _sha256(*parts: bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()
