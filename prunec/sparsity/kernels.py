"""Kernels that may be masked: those of convolutions and linear layers."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn

from prunec.errors import PassError

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED, nn.Linear)


def sparse_kernels(module: nn.Module, dense: Sequence[str] = ()) -> dict[str, Tensor]:
    """Return the kernels that a method may mask, by parameter name; shared ones once.

    Args:
        module: network.
        dense: layers that stay dense: names, or patterns such as ``layer1.*``.

    Raises:
        PassError: a pattern matches no layer, or no kernel is left.
    """
    layers = {name: part for name, part in module.named_modules() if isinstance(part, LAYERS)}
    for pattern in dense:
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise PassError(
                f"dense = {pattern!r} fits no layer",
                remedy=f"Layers are: {', '.join(list(layers)[:12])}, …",
            )
    kept = {
        id(part.weight)
        for name, part in layers.items()
        if any(fnmatchcase(name, pattern) for pattern in dense)
    }
    kernels = {id(part.weight) for part in layers.values()} - kept
    parameters = module.named_parameters()
    masked: dict[str, Tensor] = {name: p for name, p in parameters if id(p) in kernels}
    if not masked:
        raise PassError("no kernel is left that may be masked", remedy="Name fewer layers dense.")
    return masked
