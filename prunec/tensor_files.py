"""Tensors in safetensors files: each written with its digest, so that damage has a name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from prunec.errors import DamagedRecord
from prunec.files import write_bytes_atomic

_DIGESTS = "digests"  # the key of a file's metadata: tensor name → the start of its sha256
_SHOWN = 3
_REMEDY = "Use another checkpoint or step, or train again."


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors as safetensors, whole or not at all; tensors that share memory are copied.

    Returns:
        The sha256 of the file.

    Raises:
        RunError: the system refused (disk full, read-only, no permission, …).
    """
    copies = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    digests = {name: _digest(_bytes(copies[name])) for name in sorted(copies)}
    data = save(copies, {_DIGESTS: json.dumps(digests)})
    write_bytes_atomic(path, data)
    return hashlib.sha256(data).hexdigest()


def read_tensors(path: Path, sha256: str = "") -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU.

    Args:
        path: the file.
        sha256: of its bytes, as it was written down; empty where nobody did.

    Raises:
        DamagedRecord: the file is missing or damaged; names the tensors that are not as they were.
    """
    try:
        data = path.read_bytes()
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            where = _damage(data) or "its digest is not the one written down"
            raise DamagedRecord(f"{path} is damaged: {where}", remedy=_REMEDY)
        return load(data)
    except FileNotFoundError:
        raise DamagedRecord(f"{path} is missing", remedy=_REMEDY) from None
    except OSError as error:
        raise DamagedRecord(f"{path} cannot be read: {error.strerror}", remedy=_REMEDY) from error
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedRecord(f"{path} is damaged: {error}", remedy=_REMEDY) from error


def _damage(data: bytes) -> str:
    """Which tensors of a file are not those that were written; empty where that cannot be told."""
    try:
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        digests = json.loads(header.pop("__metadata__")[_DIGESTS])
        wrong = [n for n in digests if _slice(data, start, header.get(n)) != digests[n]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    more = f" and {len(wrong) - _SHOWN} more tensors" if len(wrong) > _SHOWN else ""
    told = "is" if len(wrong) == 1 else "are"
    return f"{', '.join(wrong[:_SHOWN])}{more} {told} not what was written" if wrong else ""


def _slice(data: bytes, start: int, entry: Mapping[str, Any] | None) -> str:
    """The digest of the tensor of an entry of the header; empty where there is none."""
    if entry is None:
        return ""
    begin, end = entry["data_offsets"]
    return _digest(data[start + begin : start + end])


def _digest(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.reshape(-1).view(torch.uint8) if tensor.numel() else tensor
    return flat.numpy().data
