"""Augmentation of whole batches against torchvision's, image by image, with what was drawn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from prunec.batches.transforms import build_transform
from prunec.batches.whole_batch import whole_batch
from prunec.seeding import derived_seed

COUNT = 48
ALL = slice(0, COUNT)


def images(channels: int = 3, size: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randint(
        0, 256, (COUNT, channels, size, size), generator=generator, dtype=torch.uint8
    )


def changed(*tables: dict[str, Any], given: Tensor, own: slice = ALL, seed: int = 0) -> Tensor:
    whole = whole_batch(build_transform(tables, "data.augment"))
    assert whole is not None
    return whole(given[own], COUNT, own, seed, 2, 5)


KNOWN: list[dict[str, Any]] = [
    {"name": "RandomCrop", "size": 12, "padding": 2},
    {"name": "RandomCrop", "size": [10, 8], "padding": [1, 3]},
    {"name": "RandomHorizontalFlip"},
    {"name": "RandomVerticalFlip", "p": 0.3},
    {"name": "RandomErasing", "p": 0.7, "value": 9},
    {"name": "ColorJitter", "brightness": 0.4, "contrast": 0.4, "saturation": 0.4},
]


def candidates(table: dict[str, Any], image: Tensor) -> list[Tensor]:
    """Everything that torchvision can make of an image by the parameters of a crop or a flip."""
    if table["name"] == "RandomCrop":
        padded = F.pad(image, table["padding"])
        height, width = table["size"] if isinstance(table["size"], list) else 2 * [table["size"]]
        return [
            F.crop(padded, top, left, height, width)
            for top in range(padded.shape[1] - height + 1)
            for left in range(padded.shape[2] - width + 1)
        ]
    flip = F.horizontal_flip if "Horizontal" in table["name"] else F.vertical_flip
    return [image, flip(image)]


@pytest.mark.parametrize("table", KNOWN[:4], ids=lambda t: t["name"])
def test_every_image_is_one_that_torchvision_makes_of_it(table: dict[str, Any]) -> None:
    """And over a batch many of the parameters occur: they are drawn for each image."""
    given = images()
    actual = changed(table, given=given)
    chosen = set()
    for before, after in zip(given, actual, strict=True):
        made = candidates(table, before)
        matching = [i for i, one in enumerate(made) if torch.equal(one, after)]
        assert matching
        chosen.add(matching[0])
    assert len(chosen) >= min(len(candidates(table, given[0])), 10)


def test_erased_is_one_rectangle_of_the_value() -> None:
    given = images().clamp(min=10)
    actual = changed(KNOWN[4], given=given)
    areas = set()
    for before, after in zip(given, actual, strict=True):
        gone = (after != before).any(0)
        rows, columns = gone.any(1).sum(), gone.any(0).sum()
        assert gone.sum() == rows * columns
        assert (after[:, gone] == 9).all()
        areas.add(int(gone.sum()))
    assert len(areas) > 8
    assert 0 in areas


@pytest.mark.parametrize("part", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_torchvisions_at_some_factor(part: str, channels: int) -> None:
    """Bit for bit at the factor that was drawn, one for each image."""
    given = images(channels)
    actual = changed({"name": "ColorJitter", part: 0.5}, given=given)
    if part == "saturation" and channels == 1:
        assert torch.equal(actual, given)
        return
    generator = torch.Generator().manual_seed(derived_seed(0, 2, 5, 0))
    torch.randperm(1, generator=generator)
    factors = 0.5 + torch.rand(COUNT, generator=generator, dtype=torch.float64)
    adjust = getattr(F, f"adjust_{part}")
    for before, after, factor in zip(given, actual, factors.float(), strict=True):
        wanted = adjust(before, float(factor))
        assert (wanted.int() - after.int()).abs().max() <= 1  # in which order a product is rounded
        assert (wanted == after).float().mean() > 0.99


@pytest.mark.parametrize("table", KNOWN, ids=lambda t: t["name"])
def test_a_part_of_a_batch_is_that_part_of_the_whole(table: dict[str, Any]) -> None:
    """So several processes see what one would; the same seed gives the same, another does not."""
    given = images()
    whole = changed(table, given=given)
    part = slice(16, 32)
    assert torch.equal(changed(table, given=given, own=part), whole[part])
    assert torch.equal(changed(table, given=given), whole)
    assert not torch.equal(changed(table, given=given, seed=1), whole)


def test_in_a_row_each_has_numbers_of_its_own() -> None:
    twice = changed(KNOWN[2], KNOWN[2], given=images())
    assert not torch.equal(twice, images())
    once = changed(KNOWN[2], given=images())
    assert not torch.equal(twice, once)


@pytest.mark.parametrize(
    "tables",
    [
        [{"name": "RandomRotation", "degrees": 10}],
        [{"name": "RandomHorizontalFlip"}, {"name": "RandAugment"}],
        [{"name": "RandomCrop", "size": 12, "padding": 2, "padding_mode": "reflect"}],
        [{"name": "RandomCrop", "size": 12, "padding": 2, "fill": 7}],
        [{"name": "ColorJitter", "hue": 0.1}],
        [{"name": "RandomErasing", "value": "random"}],
    ],
)
def test_what_is_not_known_here_stays_with_torchvision(tables: list[dict[str, Any]]) -> None:
    assert whole_batch(build_transform(tables, "data.augment")) is None


def test_floats_are_cropped_and_flipped_too() -> None:
    given = images().float() / 255
    actual = changed(KNOWN[0], KNOWN[2], given=given)
    assert actual.dtype == torch.float32
    assert isinstance(build_transform(KNOWN[:1], "x"), v2.Compose)
