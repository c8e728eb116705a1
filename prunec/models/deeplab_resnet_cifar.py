"""A small DeepLabV3 (arXiv 1706.05587) on a ResNet for CIFAR, for small images on a CPU.

The stem halves the size; the last stage dilates instead of halving, so that the output stride is 4.
The head is that of `deeplab_mobilenet_v2`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabV3

from prunec.models.deeplab_mobilenet_v2 import deeplab_head
from prunec.models.resnet_cifar import WIDTHS, BasicBlock, ResNetCifar


class Backbone(nn.Module):
    """The network without its classifier: images [N, C, H, W] to {"out": [N, 64, H/4, W/4]}."""

    def __init__(self, blocks: int, in_channels: int) -> None:
        super().__init__()
        self.net = ResNetCifar(blocks, 1, in_channels)
        del self.net.fc
        self.net.conv1.stride = (2, 2)
        first = self.net.layer3[0]
        assert isinstance(first, BasicBlock)
        first.stride = 1  # the stride of its shortcut
        for name, layer in self.net.layer3.named_modules():
            if isinstance(layer, nn.Conv2d):
                layer.stride = (1, 1)
                if name != "0.conv1":
                    layer.dilation = layer.padding = (2, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the features."""
        return {"out": self.net.features(x)}


def deeplabv3_resnet8(
    num_classes: int,
    in_channels: int = 3,
    # A third of the paper's 6, 12, 18: canvases of 48 pixels have features of 12, beyond which
    # larger rates would read zeros alone.
    atrous_rates: Sequence[int] = (2, 4, 6),
    head_channels: int = 64,
) -> nn.Module:
    """Return the network: images [N, in_channels, H, W] to {"out": logits [N, num_classes, H, W]}.

    Args:
        num_classes: number of classes, background included.
        in_channels: channels of the images.
        atrous_rates: dilations of the head's 3×3 convolutions.
        head_channels: channels of each branch of the head.
    """
    head = deeplab_head(WIDTHS[-1], num_classes, atrous_rates, head_channels)
    module: nn.Module = DeepLabV3(Backbone(1, in_channels), head)
    return module
