"""Tensors in safetensors files, each with its own digest, so that a damaged tensor is named."""

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

_DIGESTS = "digests"  # key of the file's metadata: tensor name → start of its sha256
_SHOWN = 3  # tensors that a message names
_REMEDY = "Use another checkpoint or step, or train again."


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors as safetensors, atomically; tensors that share memory are copied.

    Returns:
        The sha256 of the file.

    Raises:
        RunError: the system refused (disk full, read-only, no permission, …).
    """
    # clone: safetensors refuses tensors that share memory.
    copies = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    digests = {name: _digest(_bytes(copies[name])) for name in sorted(copies)}
    data = save(copies, {_DIGESTS: json.dumps(digests)})
    write_bytes_atomic(path, data)
    return hashlib.sha256(data).hexdigest()


def read_tensors(path: Path, sha256: str = "") -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU.

    Args:
        path: the file.
        sha256: recorded digest of the file; empty where none was recorded.

    Raises:
        DamagedRecord: the file is missing or damaged; names the damaged tensors.
    """
    try:
        data = path.read_bytes()
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            reason = _damage(data) or "its digest is not the recorded one"
            raise DamagedRecord(f"{path} is damaged: {reason}", remedy=_REMEDY)
        return load(data)
    except FileNotFoundError:
        raise DamagedRecord(f"{path} is missing", remedy=_REMEDY) from None
    except OSError as error:
        raise DamagedRecord(f"{path} cannot be read: {error.strerror}", remedy=_REMEDY) from error
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedRecord(f"{path} is damaged: {error}", remedy=_REMEDY) from error


def _damage(data: bytes) -> str:
    """Name the tensors whose digest does not fit; empty where the header is damaged, too."""
    try:
        # safetensors: eight bytes with the header's length, the header as JSON, the data.
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        digests = json.loads(header.pop("__metadata__")[_DIGESTS])
        wrong = [n for n in digests if _slice(data, start, header.get(n)) != digests[n]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    more = f" and {len(wrong) - _SHOWN} more tensors" if len(wrong) > _SHOWN else ""
    verb = "is" if len(wrong) == 1 else "are"
    return f"{', '.join(wrong[:_SHOWN])}{more} {verb} not what was written" if wrong else ""


def _slice(data: bytes, start: int, entry: Mapping[str, Any] | None) -> str:
    """Return the digest of a tensor by its entry in the header; empty for a missing entry."""
    if entry is None:
        return ""
    begin, end = entry["data_offsets"]
    return _digest(data[start + begin : start + end])


def _digest(data: bytes | memoryview) -> str:
    # 64 bits: enough against damage; the file's own sha256 stands against forgery.
    return hashlib.sha256(data).hexdigest()[:16]


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.reshape(-1).view(torch.uint8) if tensor.numel() else tensor
    return flat.numpy().data
