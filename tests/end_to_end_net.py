"""The network of the end-to-end tests, named in their recipe as anybody's factory would be."""

from __future__ import annotations

from torch import Tensor, nn
from zoo.parts import block, head, linear_block


class Tiny(nn.Module):
    """Stem, inverted residual, head; [N, 3, 16, 16] to [N, num_classes]."""

    def __init__(self, num_classes: int, width: int = 16) -> None:
        super().__init__()
        self.stem = block(3, width)
        wide = 2 * width
        self.body = nn.Sequential(
            block(width, wide, 1), block(wide, wide, groups=wide), linear_block(wide, width, 1)
        )
        self.tail = block(width, wide, stride=2)
        self.head = head(wide, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.tail(x + self.body(x)))
