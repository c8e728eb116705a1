"""Kernels shared by several blocks, with a gain s per use: s·(W∗x).

A batch norm follows each use and absorbs the gain at the end, for any s:

    γ(s·c − μ)/√(σ²+ε) + β  =  (γ·s)·(c − 0)/√(σ²+ε) + (β − γ·μ/√(σ²+ε)).

Then the uses differ only in their norms, and a file stores the kernel once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from prunec.graph.capture import capture
from prunec.graph.channels.analyse import analyse
from prunec.graph.channels.operators.batch_norm import Norm
from prunec.graph.channels.operators.kernel import Kernel
from prunec.models.ties import tie

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Reuse:
    """Convolution that uses the kernel of another one.

    Attributes:
        layer: name of the convolution.
        owner: name of the convolution that owns the kernel.
        norm: batch norm after the convolution.
    """

    layer: str
    owner: str
    norm: Norm

    @property
    def kernels(self) -> set[str]:
        """Names of the two tied parameters."""
        return {f"{self.layer}.weight", f"{self.owner}.weight"}


class Gained(nn.Module):
    """Convolution with kernel s·W."""

    def __init__(self, convolution: nn.Module, gain: Tensor) -> None:
        super().__init__()
        self.convolution = convolution
        self.gain = nn.Parameter(gain)

    def forward(self, x: Tensor) -> Tensor:
        """Return (s·W)∗x."""
        kernel = self.convolution.get_parameter("weight") * self.gain
        result: Tensor = functional_call(self.convolution, {"weight": kernel}, (x,))
        return result


def reuses(module: nn.Module, example: tuple[Tensor, ...], own: int) -> list[Reuse]:
    """Return the possible reuses if each stage's first ``own`` blocks keep their kernels.

    A stage is a sequence of blocks, modules of one class. A later block uses the kernels of block
    ``own`` − 1: of convolutions of equal place and shape, without bias, read only by a batch norm
    with scale and shift.

    Args:
        module: network in evaluation mode; it is not changed.
        example: inputs of the network, batch first.
        own: number of blocks with kernels of their own, at least 1.
    """
    norms = _norms(module, example)
    by_layer: dict[str, Reuse] = {}
    for layer, owner in _candidates(module, own):
        shapes = {tuple(module.get_parameter(f"{n}.weight").shape) for n in (layer, owner)}
        if layer in norms and owner in norms and layer not in by_layer and len(shapes) == 1:
            by_layer[layer] = Reuse(layer, owner, norms[layer])
    return list(by_layer.values())


def _candidates(module: nn.Module, own: int) -> Iterator[tuple[str, str]]:
    """Yield (convolution, owner of the kernel it would use), by place in their blocks."""
    for name, stage in module.named_modules():
        if not isinstance(stage, (nn.Sequential, nn.ModuleList)):
            continue
        prefix = f"{name}." if name else ""
        blocks = list(stage.named_children())
        for number, block in blocks[own:]:
            first, owner = blocks[own - 1]
            if type(block) is not type(owner):
                continue
            for place, part in block.named_modules():
                if place and isinstance(part, CONVOLUTIONS) and _holds(owner, place, type(part)):
                    yield f"{prefix}{number}.{place}", f"{prefix}{first}.{place}"


def _holds(block: nn.Module, place: str, kind: type[nn.Module]) -> bool:
    return type(dict(block.named_modules()).get(place)) is kind


def _norms(module: nn.Module, example: tuple[Tensor, ...]) -> dict[str, Norm]:
    """Return convolution → batch norm after it, if neither has another reader."""
    structure = analyse(capture(module, example))
    norms = {}
    for norm in structure.of(Norm).values():
        kernel = structure.operators.get(norm.source)
        if not isinstance(kernel, Kernel) or kernel.bias or not (norm.weight and norm.bias):
            continue
        alone = len(norm.source.users) == 1
        if alone and structure.captured.readers(kernel.weight) == {kernel.node}:
            norms[kernel.weight.removesuffix(".weight")] = norm
    return norms


def share(module: nn.Module, shared: Sequence[Reuse], gains: Tensor) -> dict[str, str]:
    """Tie the shared kernels in place, each use with its gain; return the tied parameters.

    Args:
        module: network.
        shared: reuses.
        gains: initial gains, shape (len(shared),).
    """
    ties = {f"{one.layer}.weight": f"{one.owner}.weight" for one in shared}
    tie(module, ties)
    for one, gain in zip(shared, gains, strict=True):
        _put(module, one.layer, Gained(module.get_submodule(one.layer), gain.clone()))
    return ties


@torch.no_grad()
def absorb_gains(module: nn.Module, shared: Sequence[Reuse]) -> None:
    """Multiply every gain into the norm after it and remove the gain, in place."""
    for one in shared:
        gained = module.get_submodule(one.layer)
        assert isinstance(gained, Gained)
        _absorb(module, one.norm, gained.gain)
        _put(module, one.layer, gained.convolution)


def _absorb(module: nn.Module, norm: Norm, gain: Tensor) -> None:
    assert norm.weight
    assert norm.bias
    gamma, beta = module.get_parameter(norm.weight), module.get_parameter(norm.bias)
    mean, variance = module.get_buffer(norm.mean), module.get_buffer(norm.variance)
    beta.sub_(gamma * mean / torch.sqrt(variance + norm.epsilon))
    gamma.mul_(gain)
    mean.zero_()


def _put(module: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, part)
