"""A segmentation that learns in a second: squares of two classes in noise, 32 images of 1×12×12."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from small_training import CPU, Recorder
from torch import Tensor, nn
from torchvision.transforms import v2

from prunec.batches.batches import MemoryData
from prunec.batches.joint_transforms import WithMask
from prunec.recipe import Recipe
from prunec.store.runs import RunFolder
from prunec.tasks.segmentation import VOID, Segmentation
from prunec.training.context import Context


def segmentation_recipe(**train: Any) -> Recipe:
    settings = {
        "epochs": 3, "batch_size": 8, "learning_rate": 0.1,
        "precision": "fp32", "channels_last": False, "threads": 1, **train,
    }  # fmt: skip
    return Recipe.model_validate(
        {
            "name": "small", "model": {"name": "x:y"}, "data": {"name": "embedded-segmentation"},
            "train": settings, "pass": ({"name": "x"},),
        }
    )  # fmt: skip


def blocks(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise in which a bright or a middling square lies, each with its class."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 60, (count, 1, 12, 12), generator=generator, dtype=torch.uint8)
    masks = torch.zeros(count, 12, 12, dtype=torch.uint8)
    for i in range(count):
        top, left = torch.randint(7, (2,), generator=generator).tolist()
        images[i, 0, top : top + 5, left : left + 5] += 80 * (1 + i % 2)
        masks[i, top : top + 5, left : left + 5] = 1 + i % 2
        masks[i, top, left] = VOID
    return images, masks


def small_context(folder: Path, *, resume: bool = False, **train: Any) -> Context:
    (images, masks), (others, held) = blocks(32, 1), blocks(10, 2)
    data = MemoryData(
        labels=("ground", "middling", "bright"), shape=(1, 12, 12), train_size=32, test_size=10,
        seed=0, device=CPU, train_images=images, train_labels=masks, test_images=others,
        test_labels=held, augment=WithMask(v2.RandomHorizontalFlip()), prepare=v2.Identity(),
        normalise=v2.ToDtype(torch.float32, scale=True), kind=Segmentation,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    recipe = segmentation_recipe(**train)
    return Context(recipe, data, CPU, RunFolder(folder), Recorder(), resume)


def net() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.1),
        nn.Conv2d(8, 3, 3, padding=1),
    )  # fmt: skip


def without_dropout() -> nn.Module:
    """Two processes draw other numbers."""
    return nn.Sequential(*(part for part in net() if not isinstance(part, nn.Dropout2d)))
