"""Kusupati et al.'s FastGRNN (NeurIPS 2018, arXiv 1901.02358) and a classifier on its last state.

    z  = σ(Wx + Uh + b_z)
    h̃  = tanh(Wx + Uh + b_h)
    h' = (σ(ζ)(1 − z) + σ(ν)) ⊙ h̃ + z ⊙ h

W and U serve both gates. Weights are drawn from 0.1·N(0, 1); biases start at 1, ζ at 1, ν at −4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunec.models.low_rank import LowRank

SPREAD = 0.1  # standard deviation of initial weights, as in the authors' code (EdgeML)


class FastGRNNCell(nn.Module):
    """Sequences [N, T, inputs] to the last state [N, hidden].

    Args:
        inputs: features per step.
        hidden: number of units.
        rank_w: rank of W; 0 for a full matrix.
        rank_u: rank of U; 0 for a full matrix.
    """

    def __init__(self, inputs: int, hidden: int, rank_w: int = 0, rank_u: int = 0) -> None:
        super().__init__()
        self.w = _map(inputs, hidden, rank_w)
        self.u = _map(hidden, hidden, rank_u)
        self.bias_z = nn.Parameter(torch.ones(hidden))
        self.bias_h = nn.Parameter(torch.ones(hidden))
        self.zeta = nn.Parameter(torch.tensor(1.0))
        self.nu = nn.Parameter(torch.tensor(-4.0))

    def forward(self, x: Tensor) -> Tensor:
        """Return the state after the last step; the initial state is zero."""
        zeta, nu = torch.sigmoid(self.zeta), torch.sigmoid(self.nu)
        wx = self.w(x)  # for all steps at once: it does not depend on the state
        h = x.new_zeros(x.shape[0], len(self.bias_z))
        for t in range(x.shape[1]):
            both = wx[:, t] + self.u(h)
            z = torch.sigmoid(both + self.bias_z)
            candidate = torch.tanh(both + self.bias_h)
            h = (zeta * (1 - z) + nu) * candidate + z * h
        return h


class FastGRNN(nn.Module):
    """Sequences as images [N, C, H, T], C·H features per step, to logits [N, num_classes]."""

    def __init__(
        self, num_classes: int, inputs: int, hidden: int, rank_w: int = 0, rank_u: int = 0
    ) -> None:
        super().__init__()
        self.cell = FastGRNNCell(inputs, hidden, rank_w, rank_u)
        self.classifier = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, num_classes]."""
        logits: Tensor = self.classifier(self.cell(x.flatten(1, 2).transpose(1, 2)))
        return logits


def _map(inputs: int, outputs: int, rank: int) -> nn.Module:
    """Return a linear map without bias, as one matrix or two factors of a rank, initialised."""
    whole = nn.Linear(inputs, outputs, bias=False)
    made = LowRank(inputs, outputs, rank, bias=False) if rank else whole
    for part in made.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=SPREAD)
    return made


def fastgrnn(
    num_classes: int, inputs: int, hidden: int, rank_w: int = 0, rank_u: int = 0
) -> FastGRNN:
    """Return FastGRNN with a classifier on its last state."""
    return FastGRNN(num_classes, inputs, hidden, rank_w, rank_u)
