"""A training that takes a tenth of a second: 96 images of 1×8×8, three classes, one dropout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torchvision.transforms import v2

from prunec.batches.batches import MemoryData
from prunec.recipe import Recipe
from prunec.store.runs import RunFolder
from prunec.training.context import Context
from prunec.training.progress import PlainProgress

CPU = torch.device("cpu")


class Recorder(PlainProgress):
    """Keeps what was told."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))
        self.notes: list[str] = []
        self.epochs: list[dict[str, Any]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def epoch(self, metrics: Any) -> None:
        super().epoch(metrics)
        self.epochs.append(dict(metrics))


def blobs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return noise with one bright row a class: learnable in an epoch or two."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 100, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images[torch.arange(count), 0, 2 * labels + 1] += 150
    return images, labels


def small_data(train: int = 96, test: int = 30, seed: int = 0) -> MemoryData:
    train_images, train_labels = blobs(train, 1)
    test_images, test_labels = blobs(test, 2)
    to_float = v2.ToDtype(torch.float32, scale=True)
    return MemoryData(
        labels=("low", "middle", "high"),
        shape=(1, 8, 8),
        train_size=train,
        test_size=test,
        seed=seed,
        device=CPU,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        augment=v2.RandomHorizontalFlip(),
        prepare=v2.Identity(),
        normalise=v2.Compose([to_float, v2.Normalize([0.5], [0.5])]),
    )


def small_recipe(**train: Any) -> Recipe:
    settings = {
        "epochs": 4, "batch_size": 16, "learning_rate": 0.05,
        "precision": "fp32", "channels_last": True, "threads": 1, **train,
    }  # fmt: skip
    return Recipe.model_validate(
        {"name": "small", "model": {"name": "x:y"}, "train": settings, "pass": ({"name": "x"},)}
    )


def small_net() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(512, 3),
    )


def small_context(folder: Path, *, resume: bool = False, **train: Any) -> Context:
    return Context(
        recipe=small_recipe(**train),
        data=small_data(),
        device=CPU,
        run=RunFolder(folder),
        progress=Recorder(),
        resume=resume,
    )


class Stopped(Exception):
    """Exception that ends a training from outside."""


def stopping_after(context: Context, epoch: int) -> Context:
    """Return a context whose training raises Stopped when an epoch is over."""
    tell = context.progress.epoch

    def telling(metrics: Any) -> None:
        tell(metrics)
        if metrics["epoch"] == epoch:
            raise Stopped

    context.progress.epoch = telling  # type: ignore[method-assign]
    return context
