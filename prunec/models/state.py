"""State of a network: roles and bytes of its tensors, and a digest of all."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


def roles(module: nn.Module) -> dict[str, str]:
    """Return tensor name → ``parameter`` or ``buffer``, of a network."""
    named = dict.fromkeys((n for n, _ in module.named_buffers(remove_duplicate=False)), "buffer")
    return named | dict.fromkeys(
        (n for n, _ in module.named_parameters(remove_duplicate=False)), "parameter"
    )


def raw_bytes(tensor: Tensor) -> bytes:
    """Return the bytes of a tensor in C order, of any type and device."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def weights_digest(module: nn.Module) -> str:
    """Return the sha256 of a network's state: names, types, shapes and bits, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(raw_bytes(tensor))
    return digest.hexdigest()
