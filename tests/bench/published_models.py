"""The networks of torchvision and timm as published, on the smallest image that each accepts.

Every layer and width is the published one, but for the ten classes; no weight is downloaded. The
image is small because what is proven does not depend on it: a constructor that asks for a size gets
the small one; one that knows a single size gets that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from masks import KERNELS, NORMS, randomise
from torch import Tensor, nn
from torchvision import models
from torchvision.models.video import mvit

Shape = tuple[int, ...]
BACKBONE = ".backbone"
TIMM = "timm:"
SIDE = 64

# Those whose forward pass, or whose constructor, needs another size.
SIDES = {
    "inception_v3": 96,
    "maxvit_t": 224,  # windows of 7 that must divide the image at every stride
    "vit_h_14": 56,
    "ssd300_vgg16" + BACKBONE: 300,
    "ssdlite320_mobilenet_v3_large" + BACKBONE: 320,
}
CLIPS = {
    "s3d": (3, 14, 224, 224),  # the last pooling is 7 × 7 at stride 32
    "mvit_v1_b": (3, 4, 64, 64),
    "mvit_v2_s": (3, 4, 64, 64),
}
CLIP = (3, 4, 64, 64)
OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": False},
    "inception_v3": {"init_weights": False},
}


def published() -> list[str]:
    """Names of everything that torchvision ships, by task."""
    backbones = [name + BACKBONE for name in models.list_models(module=models.detection)]
    tasks = (models, models.segmentation, models.video)
    return [name for task in tasks for name in models.list_models(module=task)] + backbones


def build(name: str, side: int | None = None) -> tuple[nn.Module, Shape]:
    """A network in float64 and eval mode with random norms, and the shape of one sample."""
    torch.manual_seed(0)
    shape = _shape(name, side)
    module = _maker(name, shape)().eval().double()
    randomise(module)
    _randomise_the_rest(module)
    return module, shape


def example_of(shape: Shape, batch: int, seed: int = 0) -> tuple[Tensor]:
    """Random samples."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(batch, *shape, generator=generator, dtype=torch.float64),)


def _shape(name: str, side: int | None) -> Shape:
    if name in models.list_models(module=models.video):
        channels, frames, height, width = CLIPS.get(name, CLIP)
        return (channels, frames, side or height, side or width)
    own = side or SIDES.get(name, SIDE)
    return (3, own, own)


def _maker(name: str, shape: Shape) -> Callable[[], nn.Module]:
    if name.startswith(TIMM):
        import timm

        return partial(timm.create_model, name.removeprefix(TIMM), num_classes=10)
    if name.endswith(BACKBONE):
        return partial(_backbone, name.removesuffix(BACKBONE))
    options = {"weights": None, "num_classes": 10, **OPTIONS.get(name, {})}
    if name in models.list_models(module=models.segmentation):
        options["weights_backbone"] = None
    if name.startswith("vit_"):
        options["image_size"] = shape[-1]
    if name.startswith("mvit_"):
        return partial(_small_mvit, name, shape, options)
    return partial(models.get_model, name, **options)


def _backbone(name: str) -> nn.Module:
    backbone = models.get_model(name, weights=None, weights_backbone=None).backbone
    assert isinstance(backbone, nn.Module)
    return backbone


def _small_mvit(name: str, shape: Shape, options: dict[str, Any]) -> nn.Module:
    """Its builder knows one size only; its class takes any."""
    size = {"temporal_size": shape[1], "spatial_size": shape[2:]}
    original = mvit.MViT
    with _swapped(mvit, "MViT", lambda **given: original(**(given | size))):
        module = models.get_model(name, **options)
    assert isinstance(module, nn.Module)
    return module


@contextlib.contextmanager
def _swapped(owner: object, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@torch.no_grad()
def _randomise_the_rest(module: nn.Module) -> None:
    """Parameters of no kernel and no norm: biases from 0, scales from where they hide errors."""
    for part in module.modules():
        if isinstance(part, (*KERNELS, *NORMS)):
            continue
        for name, p in part.named_parameters(recurse=False):
            if "bias" in name and p.ndim == 1:
                p.normal_(0.0, 0.3)
            elif "scale" in name or "gamma" in name:
                p.uniform_(0.5, 1.5)
