"""How much each channel matters: by its weights, its batch norms, or what its loss would cost.

One score for each gate of `prunec.sparsity.gated_macs`, and one mean in every group: what a layer's
weights are multiplied with says nothing of its channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from prunec.errors import PassError
from prunec.graph.channels.operators.batch_norm import Norm
from prunec.graph.channels.operators.kernel import Kernel
from prunec.graph.channels.structure import Structure
from prunec.sparsity.gated_macs import Gated


class Importance:
    """Scores of the channels of a network that trains.

    Attributes:
        gated: the channels, on the network's device.
        weights: its parameters by name.
        looks: whether it looks at the gradients of batches before a choice.
    """

    looks: ClassVar[bool] = False

    def __init__(self, structure: Structure, gated: Gated, module: nn.Module) -> None:
        self.gated = gated
        self.weights = dict(module.named_parameters(remove_duplicate=False))

    def raw(self) -> Tensor:
        """Importance of each channel as its formula has it, float64 (G,), at least 0."""
        raise NotImplementedError

    def observe(self) -> None:
        """Take in the gradients of a batch."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the state, itself and no copy."""
        return {}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the same back."""

    @torch.no_grad()
    def scores(self, kept: Tensor) -> Tensor:
        """The importance by its mean over what is kept of each group, float64 (G,); −1 of the rest.

        Args:
            kept: which channels are there, bool (G,).
        """
        raw, group_of = self.raw(), self.gated.group_of
        sums = raw.new_zeros(len(self.gated.sizes)).index_add_(0, group_of, raw * kept)
        mean = sums / self.gated.counts(kept).clamp(min=1)
        return torch.where(kept, raw / mean.clamp(min=1e-300)[group_of], -1.0)

    def _gathered(self, parts: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """Sums over the gates, (G,), of values and the gate of each; gate −1 is none."""
        found = torch.zeros(len(self.gated.group_of) + 1, dtype=torch.float64,
                            device=self.gated.group_of.device)  # fmt: skip
        for values, gates in parts:
            found.index_add_(0, gates % len(found), values.reshape(-1).double())
        return found[:-1]


class Magnitude(Importance):
    """Σ|w|^p over the weights that make a channel and those that read it.

    L1 is that of Li et al. (ICLR 2017), who sum over the filter that makes it alone.
    """

    power = 1

    def __init__(self, structure: Structure, gated: Gated, module: nn.Module) -> None:
        super().__init__(structure, gated, module)
        gate_of = gated.gate_of
        self.kernels = [
            (k, gate_of[structure.class_of(k.outputs).to(gate_of.device)],
             gate_of[structure.class_of(k.inputs).to(gate_of.device)])
            for k in structure.of(Kernel).values()
        ]  # fmt: skip

    def raw(self) -> Tensor:
        """See :meth:`Importance.raw`."""
        return self._gathered(self._parts()) ** (1 / self.power)

    def _parts(self) -> Iterable[tuple[Tensor, Tensor]]:
        for kernel, outputs, inputs in self.kernels:
            powers = kernel.matrix(self.weights[kernel.weight]).abs() ** self.power
            yield powers.sum((2, 3)), outputs
            if not kernel.depthwise:  # what it reads is what it makes
                yield powers.sum((1, 3)), inputs


class SquareMagnitude(Magnitude):
    """√Σw²: L2 over the same weights."""

    power = 2


class NormScale(Importance):
    """Σ|γ| over the batch norms that a channel passes (network slimming, Liu et al., ICCV 2017).

    The paper also pulls γ towards 0 while it trains, which `train-gdp` does better to its gates.

    Raises:
        PassError: no channel passes a batch norm with scales.
    """

    def __init__(self, structure: Structure, gated: Gated, module: nn.Module) -> None:
        super().__init__(structure, gated, module)
        gate_of = gated.gate_of
        self.norms = [
            (norm.weight, gate_of[structure.class_of(structure.slices[norm.weight, 0]).to(
                gate_of.device)])
            for norm in structure.of(Norm).values() if norm.weight in self.weights
        ]  # fmt: skip
        if not any(bool((gates >= 0).any()) for _, gates in self.norms):
            raise PassError(
                'train-magnitude: importance = "norm-scale", but no channel passes a batch norm '
                "with scales",
                remedy='Say importance = "taylor", "l1" or "l2".',
            )

    def raw(self) -> Tensor:
        """See :meth:`Importance.raw`; a channel without a batch norm is as the mean of all."""
        parts = [(self.weights[name].abs(), gates) for name, gates in self.norms]
        found = self._gathered(parts)
        times = self._gathered((torch.ones_like(value), gates) for value, gates in parts)
        mean = found.sum() / times.sum()
        return torch.where(times > 0, found, mean)


class Taylor(Importance):
    """Mean over batches of (Σ w·∂L/∂w)² over the weights that read a channel.

    By how much the loss changes, to first order and squared, when a gate before its readers closes
    (Molchanov et al., CVPR 2019, their criterion at a gate).
    """

    looks = True

    def __init__(self, structure: Structure, gated: Gated, module: nn.Module) -> None:
        super().__init__(structure, gated, module)
        self.square = torch.zeros(len(gated.group_of), dtype=torch.float64,
                                  device=gated.group_of.device)  # fmt: skip

    @torch.no_grad()
    def observe(self) -> None:
        """Add the square of this batch's change of the loss."""
        self.square += self._gathered(self._parts()) ** 2

    def _parts(self) -> Iterable[tuple[Tensor, Tensor]]:
        for name, gates in self.gated.readers.items():
            weight = self.weights[name]
            if weight.grad is None:
                continue
            shape = self.gated.shapes[name]
            others = [axis for axis in range(weight.dim()) if shape[axis] == 1]
            yield (weight * weight.grad).sum(others), gates

    def raw(self) -> Tensor:
        """See :meth:`Importance.raw`; what was seen is forgotten."""
        found = self.square.clone()
        self.square.zero_()
        return found

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums."""
        return {"square": self.square}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the same back."""
        self.square.copy_(tensors["square"])


IMPORTANCES: dict[str, type[Importance]] = {
    "l1": Magnitude,
    "l2": SquareMagnitude,
    "norm-scale": NormScale,
    "taylor": Taylor,
}
