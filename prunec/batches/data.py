"""Loading of a recipe's data: data set, transforms and normalisation, ready for batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from prunec.batches.batches import Data, FolderData, MemoryData
from prunec.batches.joint_transforms import WithMask
from prunec.batches.on_device import readable
from prunec.batches.transforms import build_normalisation, build_transform, try_transform
from prunec.datasets.named import read_source
from prunec.datasets.sources import InMemory, Label, OnDisk
from prunec.errors import DataError
from prunec.processes import workers_here
from prunec.recipe import DataSpec
from prunec.tasks.segmentation import Segmentation

__all__ = ["Data", "load_data"]

CPU = torch.device("cpu")
Item = tuple[Tensor, Label]


def load_data(spec: DataSpec, *, seed: int) -> Data:
    """Load the data of a recipe, on the CPU.

    Raises:
        DataError: files are missing or damaged and cannot be downloaded, or do not fit the recipe.
        RecipeError: a transform is unknown or does not fit the images; names the key.
    """
    plain = built_transforms(spec)
    source = read_source(spec)
    augment, prepare = (for_labels(transform, source) for transform in plain)
    first_train, first_test = _first_items(source)
    shape = tuple(try_transform(prepare, first_test[0], "data.prepare", first_test[1]).shape)
    train_shape = try_transform(augment, first_train[0], train_key(spec), first_train[1]).shape
    _same_shape(tuple(train_shape), shape)
    normalise = build_normalisation(spec.mean, spec.std, shape[0])
    common: dict[str, Any] = {
        "labels": source.labels,
        "shape": shape,
        "seed": seed,
        "device": CPU,
        "augment": augment,
        "prepare": prepare,
        "normalise": normalise,
        "kind": source.kind,
    }
    if isinstance(source, OnDisk):
        if spec.decode == "device":
            readable(source.train)
        return FolderData(
            train_size=len(source.train),
            test_size=len(source.test),
            train_set=source.train,
            test_set=source.test,
            workers=workers_here(spec.workers),
            decode=spec.decode or "workers",
            **common,
        )
    return MemoryData(
        train_size=len(source.train.images),
        test_size=len(source.test.images),
        train_images=source.train.images,
        train_labels=source.train.labels,
        test_images=source.test.images,
        test_labels=source.test.labels,
        **common,
    )


def train_key(spec: DataSpec) -> str:
    """Return the key of the training images' transforms in a recipe."""
    return "data.augment" if spec.augment else "data.prepare"


def built_transforms(spec: DataSpec) -> tuple[v2.Transform, v2.Transform]:
    """Return the transforms of training images and of test images.

    Raises:
        RecipeError: a transform is unknown; names the key.
    """
    augment = build_transform(spec.augment or spec.prepare, train_key(spec))
    return augment, build_transform(spec.prepare, "data.prepare")


def for_labels(transform: v2.Transform, source: InMemory | OnDisk) -> nn.Module:
    """Return ``transform`` for pairs of image and label: masks get the geometry of their image."""
    moved = source.kind is Segmentation and not isinstance(transform, v2.Identity)
    return WithMask(transform) if moved else transform


def _first_items(source: InMemory | OnDisk) -> tuple[Item, Item]:
    if isinstance(source, InMemory):
        train, test = source.train, source.test
        return (train.images[0], train.labels[0]), (test.images[0], test.labels[0])
    return source.train[0], source.test[0]


def _same_shape(train: tuple[int, ...], test: tuple[int, ...]) -> None:
    if train != test:
        raise DataError(
            f"training images come out as {'×'.join(map(str, train))} (C×H×W), test images as "
            f"{'×'.join(map(str, test))}",
            remedy="Let data.augment and data.prepare end at the same size; data.augment replaces "
            "data.prepare for training images.",
        )
