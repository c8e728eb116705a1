"""Importance of channels: by weights, by batch norms, or by the expected change of the loss.

One score per gate of `prunec.sparsity.gated_macs`, normalised to mean 1 in every group, because a
factor common to a layer's weights does not matter to its channels.
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
    """Scores of the channels of a network in training.

    Attributes:
        gated: channels, on the network's device.
        weights: parameters of the network by name.
        looks: whether it needs the gradients of some batches before a choice.
    """

    looks: ClassVar[bool] = False

    def __init__(self, structure: Structure, gated: Gated, module: nn.Module) -> None:
        self.gated = gated
        self.weights = dict(module.named_parameters(remove_duplicate=False))

    def raw(self) -> Tensor:
        """Return the importance of each channel by its formula, float64 (G,), at least 0."""
        raise NotImplementedError

    def observe(self) -> None:
        """Accumulate the gradients of a batch."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the state, not copied."""
        return {}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state."""

    @torch.no_grad()
    def scores(self, kept: Tensor) -> Tensor:
        """Return the importance divided by the mean over kept channels of its group, float64 (G,).

        Channels that are not kept have −1.

        Args:
            kept: whether each channel is kept, bool (G,).
        """
        raw, group_of = self.raw(), self.gated.group_of
        sums = raw.new_zeros(len(self.gated.sizes)).index_add_(0, group_of, raw * kept)
        mean = sums / self.gated.counts(kept).clamp(min=1)
        # 1e-300: a group of zeros keeps scores of 0 instead of NaN.
        return torch.where(kept, raw / mean.clamp(min=1e-300)[group_of], -1.0)

    def _gathered(self, parts: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """Return sums over gates, (G,), of values with the gate of each; gate −1 is dropped."""
        sums = torch.zeros(len(self.gated.group_of) + 1, dtype=torch.float64,
                            device=self.gated.group_of.device)  # fmt: skip
        for values, gates in parts:
            sums.index_add_(0, gates % len(sums), values.reshape(-1).double())
        return sums[:-1]


class Magnitude(Importance):
    """Σ|w|^p over the weights that make a channel and those that read it.

    With p = 1, L1; Li et al. (ICLR 2017) sum only over the filter that makes the channel.
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
            if not kernel.depthwise:  # its inputs and outputs are the same channels
                yield powers.sum((1, 3)), inputs


class SquareMagnitude(Magnitude):
    """√Σw²: L2 norm of the same weights."""

    power = 2


class NormScale(Importance):
    """Σ|γ| over the batch norms that a channel passes (network slimming, Liu et al., ICCV 2017).

    The paper also penalises |γ| during training; `train-gdp` does the same to gates.

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
                remedy='Set importance = "taylor", "l1" or "l2".',
            )

    def raw(self) -> Tensor:
        """See :meth:`Importance.raw`; channels without a batch norm get the mean of all."""
        parts = [(self.weights[name].abs(), gates) for name, gates in self.norms]
        scales = self._gathered(parts)
        times = self._gathered((torch.ones_like(value), gates) for value, gates in parts)
        mean = scales.sum() / times.sum()
        return torch.where(times > 0, scales, mean)


class Taylor(Importance):
    """Mean over batches of (Σ w·∂L/∂w)² over the weights that read a channel.

    First-order change of the loss, squared, when a gate before the readers closes (Molchanov et
    al., CVPR 2019, their criterion at a gate).
    """

    looks = True

    def __init__(self, structure: Structure, gated: Gated, module: nn.Module) -> None:
        super().__init__(structure, gated, module)
        self.square = torch.zeros(len(gated.group_of), dtype=torch.float64,
                                  device=gated.group_of.device)  # fmt: skip

    @torch.no_grad()
    def observe(self) -> None:
        """Add the squared change of the loss for this batch."""
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
        """See :meth:`Importance.raw`; the accumulated sums are reset."""
        square = self.square.clone()
        self.square.zero_()
        return square

    def tensors(self) -> dict[str, Tensor]:
        """Return the accumulated sums."""
        return {"square": self.square}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the accumulated sums."""
        self.square.copy_(tensors["square"])


IMPORTANCES: dict[str, type[Importance]] = {
    "l1": Magnitude,
    "l2": SquareMagnitude,
    "norm-scale": NormScale,
    "taylor": Taylor,
}
