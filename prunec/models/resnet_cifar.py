"""He et al.'s ResNets for CIFAR (arXiv 1512.03385, §4.2): depth 6n+2, widths 16-32-64.

A 3×3 stem without pooling, three stages of n basic blocks, and shortcuts without parameters
(option A): where a stage halves the size, the stream is sampled at every other pixel and its new
channels are zero.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (16, 32, 64)  # channels of the three stages, §4.2 of the paper


class BasicBlock(nn.Module):
    """Basic block: y = relu(x' + bn(conv(relu(bn(conv(x)))))), x' the shortcut of x."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.added = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, outputs, H / stride, W / stride] for x [N, inputs, H, W]."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        """Return x subsampled and zero-padded to the size and channels of the block's output."""
        if self.stride == 1 and self.added == 0:
            return x
        # Option A: every other pixel, and zeros for the new channels, half before and half behind.
        sampled = x[:, :, :: self.stride, :: self.stride]
        before = self.added // 2
        return F.pad(sampled, (0, 0, 0, 0, before, self.added - before))


class ResNetCifar(nn.Module):
    """Images [N, in_channels, H, W] to logits [N, num_classes]."""

    def __init__(self, blocks: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = _stage(blocks, WIDTHS[0], WIDTHS[0], 1)
        self.layer2 = _stage(blocks, WIDTHS[0], WIDTHS[1], 2)
        self.layer3 = _stage(blocks, WIDTHS[1], WIDTHS[2], 2)
        self.fc = nn.Linear(WIDTHS[2], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, num_classes]."""
        logits: Tensor = self.fc(self.features(x).mean((2, 3)))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """Return the features of the last stage, [N, 64, H/4, W/4]."""
        x = F.relu(self.bn1(self.conv1(x)))
        stages: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return stages


def _stage(blocks: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


def resnet20(num_classes: int, in_channels: int = 3) -> ResNetCifar:
    """Return ResNet-20: 40.55 M MACs at 3×32×32, 0.27 M parameters."""
    return ResNetCifar(3, num_classes, in_channels)


def resnet32(num_classes: int, in_channels: int = 3) -> ResNetCifar:
    """Return ResNet-32: 68.86 M MACs at 3×32×32, 0.46 M parameters."""
    return ResNetCifar(5, num_classes, in_channels)


def resnet56(num_classes: int, in_channels: int = 3) -> ResNetCifar:
    """Return ResNet-56: 125.49 M MACs at 3×32×32, 0.85 M parameters."""
    return ResNetCifar(9, num_classes, in_channels)
