"""A DeepLabV3 of torchvision's on a backbone of three convolutions, with its second head."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabV3
from torchvision.models.segmentation.fcn import FCNHead
from zoo.parts import block

from prunec.models.deeplab_mobilenet_v2 import deeplab_head


class Backbone(nn.Module):
    """Images [N, 3, H, W] to a half of their sides; the second head reads the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.middle, self.last = block(3, 16, stride=2), block(16, 32), block(32, 32)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        middle = self.middle(self.stem(x))
        return {"out": middle + self.last(middle), "aux": middle}


def deeplab(num_classes: int, aux_loss: bool = False) -> nn.Module:
    head = deeplab_head(32, num_classes, (1, 2), 16)
    return DeepLabV3(Backbone(), head, FCNHead(32, num_classes) if aux_loss else None)
