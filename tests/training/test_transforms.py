"""Transforms of a recipe: built as torchvision would, refused with the key and the right name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_training import small_data
from torchvision.transforms import v2

from prunec.batches.transforms import build_normalisation, build_transform, try_transform
from prunec.errors import DataError, RecipeError


@pytest.mark.parametrize(
    ("table", "message", "remedy"),
    [
        (
            {"name": "RandomHorizontalFlop"},
            "data.augment[0].name = 'RandomHorizontalFlop' is not a class",
            "Did you mean 'RandomHorizontalFlip'?",
        ),
        (
            {"name": "RandomCrop", "size": 8, "paddin": 2},
            "data.augment[0].paddin is not an argument of RandomCrop",
            "Did you mean 'padding'?",
        ),
        ({"name": "RandomCrop"}, "data.augment[0] (RandomCrop): ", "Its arguments: size, padding"),
        ({"name": "RandomCrop", "size": [1, 2, 3]}, "data.augment[0] (RandomCrop): ", "size"),
        ({"size": 3}, "data.augment[0] has no name", "RandomHorizontalFlip"),
        (
            {"name": "Resize", "size": 8, "interpolation": "cubical"},
            "data.augment[0].interpolation = 'cubical' is unknown",
            "bicubic",
        ),
        ({"name": "functional"}, "is not a class of torchvision.transforms.v2", ""),
        ({"name": "InterpolationMode"}, "is not a class of torchvision.transforms.v2", ""),
    ],
)
def test_a_wrong_table_is_refused_by_key(table: dict[str, Any], message: str, remedy: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build_transform((table,), "data.augment")
    assert message in caught.value.message
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    "table", [{"name": "RandomCrop", "size": 20}, {"name": "MixUp", "num_classes": 3}]
)
def test_a_transform_that_fails_on_the_images_is_refused(table: dict[str, Any]) -> None:
    transform = build_transform((table,), "data.augment")
    with pytest.raises(RecipeError, match=r"data\.augment fails on an image of 1×8×8"):
        try_transform(transform, torch.zeros(1, 8, 8, dtype=torch.uint8), "data.augment")


def test_names_stand_for_modes() -> None:
    tables = ({"name": "Resize", "size": [4, 4], "interpolation": "nearest"},)
    image = torch.arange(64, dtype=torch.uint8).view(1, 8, 8)
    expected = v2.Resize([4, 4], interpolation=v2.InterpolationMode.NEAREST)(image)
    assert torch.equal(build_transform(tables, "data.prepare")(image), expected)


def test_normalisation_is_its_formula() -> None:
    images = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    result = build_normalisation(mean, std, 3)(images)
    expected = (images.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(
        3, 1, 1
    )
    torch.testing.assert_close(result.double(), expected, atol=1e-6, rtol=0)
    assert result.dtype == torch.float32
    usual = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
    assert torch.equal(result, usual(images))


def test_one_value_stands_for_every_channel() -> None:
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    one, three = (build_normalisation((0.5,) * n, (0.25,) * n, 3)(images) for n in (1, 3))
    assert torch.equal(one, three)


def test_a_wrong_number_of_channels_is_reported() -> None:
    with pytest.raises(DataError, match=r"data\.mean has 3 values, the images have 1 channels"):
        build_normalisation((0.5,) * 3, (0.5,) * 3, 1)


def test_every_chunk_draws_its_own_parameters() -> None:
    image = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(64, 1, 8, 8)
    data = replace(
        small_data(),
        train_size=64,
        train_images=image,
        augment=v2.RandomCrop(8, padding=4),
        normalise=v2.Identity(),
    )
    shifted, _ = next(data.train_batches(0, 64))
    groups = shifted.view(16, 4, 8, 8)
    assert (groups == groups[:, :1]).all()
    assert len({tuple(group[0].flatten().tolist()) for group in groups}) > 8
