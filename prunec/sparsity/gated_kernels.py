"""Kernels W·g behind gates: shown to the network, and their gradients taken apart.

conv_W(g ⊙ u) = conv_{W·g}(u), so a gate on a channel multiplies a slice of the kernel that reads it
(GDP, arXiv 2109.02220): ∂L/∂W = g·∂L/∂(Wg), and ∂L/∂g = Σ W·∂L/∂(Wg) over all that the gate scales.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from prunec.sparsity.effective_weights import ShownKernels
from prunec.sparsity.gated_macs import Gated
from prunec.sparsity.grouped import Groups

PIECE = 2**19  # weights whose products are summed at once: two megabytes, a core's cache


class GatedKernels:
    """The kernels that gates stand before.

    Attributes:
        names: of the kernels.
        weights: the kernels themselves.
        shown: raw and effective weights.
        index: gate of each input channel of each kernel in turn; the number of gates for none.
    """

    def __init__(self, module: nn.Module, gated: Gated) -> None:
        """Take the kernels of ``gated.readers``; they lie in one memory from the first step on."""
        parameters = dict(module.named_parameters())
        self.names = tuple(gated.readers)
        self.shown = ShownKernels({name: parameters[name] for name in gated.readers})
        self.weights = self.shown.weights
        self.gates = len(gated.group_of)
        self.index = torch.cat(list(gated.readers.values()))
        self.lengths = [len(index) for index in gated.readers.values()]
        self.shapes = list(gated.shapes.values())
        self.summed = [
            [d for d in range(k.dim()) if s[d] == 1]
            for k, s in zip(self.weights, self.shapes, strict=True)
        ]
        self.groups: Groups | None = None

    @property
    def at_once(self) -> bool:
        """Whether operations take all kernels, and none may wait for the device."""
        return self.shown.flat.at_once

    def factors(self, values: Tensor) -> list[Tensor]:
        """Return a value for each gate in shapes that broadcast against the kernels; 1: no gate."""
        spread = torch.cat([values, values.new_ones(1)])[self.index].to(self.weights[0].dtype)
        return self._shaped(spread)

    @torch.no_grad()
    def open(self, gates: Tensor) -> None:
        """Let the kernels be W·g, keeping W aside."""
        self.shown.fetch()
        if self.at_once:
            factors = self._grouped().spread(gates)
            torch.mul(self.shown.flat.raw.memory, factors, out=self.shown.room.memory)
        else:
            pairs = zip(self.shown.raw, self.factors(gates), self.shown.shown, strict=True)
            for raw, factor, shown in pairs:
                torch.mul(raw, factor, out=shown)
        self.shown.show()

    def close(self) -> None:
        """Let the kernels be W again."""
        self.shown.hide()

    @torch.no_grad()
    def rescale(self, values: Tensor, averages: Mapping[str, Tensor]) -> None:
        """Multiply the kernels, and their averages where there are any, by a value for each gate.

        Args:
            values: one for each gate.
            averages: by the kernels' names, and others.
        """
        own = [averages[name] for name in self.names] if averages else []
        if self.at_once:
            self.shown.fetch()
            groups = self._grouped()
            self.shown.flat.raw.memory.mul_(groups.spread(values))
            factors = groups.spread_out.parts
        else:
            factors = self.factors(values)
            torch._foreach_mul_(self.weights, factors)
        if own:
            torch._foreach_mul_(own, factors)

    @torch.no_grad()
    def slopes(self, gradients: list[Tensor]) -> Tensor:
        """Return ∂L/∂g = Σ W·∂L/∂(Wg), float64, one for each gate.

        Computed in the memory of what was shown: nobody computes with W·g any more.
        """
        if self.at_once:
            return self._grouped().products(self.shown.room, gradients)
        kernels = zip(self.shown.raw, gradients, self.shown.shown, self.summed, strict=True)
        sums = [_dots(raw, grad, room, dims).reshape(-1) for raw, grad, room, dims in kernels]
        # The last place takes the sums of channels without a gate.
        slope = torch.zeros(self.gates + 1, dtype=torch.float64, device=self.index.device)
        return slope.index_add_(0, self.index, torch.cat(sums).double())[:-1]

    @torch.no_grad()
    def scale(self, gradients: list[Tensor], gates: Tensor) -> None:
        """∂L/∂W = g·∂L/∂(Wg), with the gates that :meth:`open` was given."""
        factors = self._grouped().spread_out.parts if self.at_once else self.factors(gates)
        torch._foreach_mul_(gradients, factors)

    def open_shares(self, a: Tensor) -> dict[str, float]:
        """Return the share of the gates before each kernel that are open, by the kernel's layer."""
        here = self.index < self.gates
        opened = torch.cat([a, a.new_zeros(1)])[self.index] > 0
        parts = torch.split(torch.stack([opened, here]).double().cpu(), self.lengths, dim=1)
        return {
            name.removesuffix(".weight"): float(part[0].sum() / part[1].sum())
            for name, part in zip(self.names, parts, strict=True)
        }

    def _shaped(self, spread: Tensor) -> list[Tensor]:
        parts = torch.split(spread, self.lengths)
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def _grouped(self) -> Groups:
        flat = self.shown.flat
        if self.groups is None or self.groups.moves != flat.moves:
            self.groups = Groups(flat, self._shaped(self.index), self.gates)
        return self.groups


def _dots(a: Tensor, b: Tensor, room: Tensor, dims: list[int]) -> Tensor:
    """Σ a·b over ``dims``, piece by piece along the first, so that products stay in the cache."""
    rows = max(1, PIECE // a[0].numel())
    if 0 not in dims or rows >= len(a):
        return torch.mul(a, b, out=room).sum(dims)
    pieces = zip(torch.split(a, rows), torch.split(b, rows), strict=True)
    return torch.stack([torch.mul(x, y, out=room[: len(x)]).sum(dims) for x, y in pieces]).sum(0)
