"""A network whose file has much to damage: branches, groups, a concatenation, limits, constants."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Branches(nn.Module):
    """Two convolutional branches, one grouped, concatenated and added; input 3×12×12."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.left = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.right = nn.Conv2d(8, 8, 1)
        self.join = nn.Conv2d(16, 8, 3, padding=1, stride=2)
        self.slope = nn.PReLU(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Return five logits."""
        y = F.relu6(self.norm(self.stem(x)))
        left, right = F.leaky_relu(self.left(y), 0.1), torch.sigmoid(self.right(y)) * 2.5
        y = self.slope(self.join(torch.cat([left + y, right], 1)))
        y = F.max_pool2d(F.pad(y, (1, 0, 0, 1)), 2)
        return self.head(F.hardswish(y).mean((2, 3)))


def branches() -> nn.Module:
    """Return the network with weights and statistics of its own, in evaluation mode."""
    torch.manual_seed(5)
    module = Branches().eval()
    for name, tensor in module.state_dict().items():
        if name.startswith("norm.") and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return module
