"""Howard et al.'s MobileNet (arXiv 1704.04861): depthwise-separable convolutions, 28 layers.

A 3×3 stem of stride 2, thirteen pairs of a 3×3 depthwise and a 1×1 convolution, each followed by
batch norm and ReLU, then the mean over places and a linear classifier.
"""

from __future__ import annotations

from torch import Tensor, nn

STEM = 32  # channels: Table 1 of the paper, at width 1
PAIRS = (  # channels and stride of each depthwise-separable pair
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1),
    (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip


class MobileNetV1(nn.Module):
    """Images [N, 3, H, W] to logits [N, num_classes].

    Args:
        num_classes: number of classes.
        width: factor of all channel counts.
        in_channels: channels of the images.
    """

    def __init__(self, num_classes: int, width: float = 1.0, in_channels: int = 3) -> None:
        super().__init__()
        channels = int(STEM * width)
        layers = [_convolution(in_channels, channels, 3, 2)]
        for outputs, stride in PAIRS:
            layers.append(_convolution(channels, channels, 3, stride, groups=channels))
            layers.append(_convolution(channels, int(outputs * width), 1, 1))
            channels = int(outputs * width)
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, num_classes]."""
        logits: Tensor = self.fc(self.features(x).mean((2, 3)))
        return logits


def _convolution(inputs: int, outputs: int, side: int, stride: int, groups: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, side, stride, side // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def mobilenet_v1(num_classes: int = 1000, width: float = 1.0, in_channels: int = 3) -> MobileNetV1:
    """Return MobileNetV1: 568.74 M MACs at 3×224×224, 4.21 M weights of kernels."""
    return MobileNetV1(num_classes, width, in_channels)
