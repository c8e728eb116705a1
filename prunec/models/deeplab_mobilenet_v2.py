"""DeepLabV3 (arXiv 1706.05587) on MobileNetV2 (arXiv 1801.04381), which torchvision does not have.

The backbone is torchvision's mobilenet_v2 up to its last block, of 320 channels, as in §6.3 of the
MobileNetV2 paper; strides beyond ``output_stride`` become dilation. The head is torchvision's: ASPP
of 1×1, three dilated 3×3 and the mean, a projection, a 3×3, a 1×1.

The backbone's parameters have the names of torchvision's classifier, without ``features.``:
``model.backbone_weights = "mobilenet_v2:IMAGENET1K_V1"``, or a file, starts it pretrained.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torchvision.models import mobilenet_v2
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.deeplabv3 import ASPP, DeepLabV3

BLOCKS = 18  # blocks of torchvision's features; the 19th is the classifier's 1×1 convolution
RATES = (6, 12, 18)  # dilations in the paper, at output stride 16
STRIDES = (8, 16, 32)


def deeplabv3_mobilenet_v2(
    num_classes: int = 21,
    width_mult: float = 1.0,
    output_stride: int = 16,
    atrous_rates: Sequence[int] = RATES,
    head_channels: int = 256,
    in_channels: int = 3,
) -> nn.Module:
    """Return the network: images [N, in_channels, H, W] to {"out": logits [N, num_classes, H, W]}.

    Args:
        num_classes: number of classes, background included.
        width_mult: factor of the backbone's channels.
        output_stride: side of an image divided by that of the last block's output.
        atrous_rates: dilations of the head's 3×3 convolutions.
        head_channels: channels of each branch of the head.
        in_channels: channels of the images.

    Raises:
        ValueError: ``output_stride`` is not 8, 16 or 32.
    """
    if output_stride not in STRIDES:
        raise ValueError(f"output_stride = {output_stride} must be one of {STRIDES}")
    features = mobilenet_v2(width_mult=width_mult).features[:BLOCKS]
    if in_channels != 3:
        stem = features[0][0]
        features[0][0] = nn.Conv2d(in_channels, stem.out_channels, 3, 2, 1, bias=False)
        nn.init.kaiming_normal_(features[0][0].weight, mode="fan_out")
    _dilate(features, output_stride)
    backbone = IntermediateLayerGetter(features, {str(BLOCKS - 1): "out"})
    head = deeplab_head(features[-1].out_channels, num_classes, atrous_rates, head_channels)
    module: nn.Module = DeepLabV3(backbone, head)
    return module


def _dilate(features: nn.Module, output_stride: int) -> None:
    """Replace strides beyond ``output_stride`` by 1, and dilate the convolutions after them."""
    stride, dilation = 1, 1
    for layer in features.modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        before = dilation
        if layer.stride[0] > 1 and stride * layer.stride[0] > output_stride:
            dilation *= layer.stride[0]
            layer.stride = (1, 1)
        stride *= layer.stride[0]
        if layer.kernel_size[0] > 1:
            layer.dilation = (before, before)
            layer.padding = (before, before)


def deeplab_head(inputs: int, classes: int, rates: Sequence[int], channels: int) -> nn.Sequential:
    """Return the head of torchvision's DeepLabV3, with a variable number of channels."""
    return nn.Sequential(
        ASPP(inputs, rates, channels),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, classes, 1),
    )
