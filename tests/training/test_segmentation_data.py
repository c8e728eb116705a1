"""Images with masks: one geometry for both, VOC as it lies on disk, canvases of garments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_voc import VOID, save_mask, write_voc
from PIL import Image
from small_training import CPU
from torch import Tensor
from torchvision.transforms import v2

from prunec.batches.batches import FolderData, MemoryData
from prunec.batches.data import load_data
from prunec.batches.data_check import check_data
from prunec.batches.joint_transforms import WithMask
from prunec.batches.transforms import build_transform
from prunec.errors import DamagedData, DataError, RecipeError
from prunec.processes import Processes
from prunec.recipe import DataSpec
from prunec.tasks.segmentation import Segmentation

CLASSES = 4


# -- images and masks ------------------------------------------------------------------------------


def painted(seed: int = 0) -> tuple[Tensor, Tensor]:
    """A mask of large blocks, and an image whose red says 10 × (class + 1); 0 is nothing."""
    blocks = torch.randint(CLASSES, (5, 5), generator=torch.Generator().manual_seed(seed))
    mask = blocks.repeat_interleave(12, 0).repeat_interleave(12, 1).to(torch.uint8)
    red = 10 * (mask + 1)
    return torch.stack([red, torch.zeros_like(red), torch.zeros_like(red)]), mask


MOVES: list[dict[str, Any]] = [
    {"name": "RandomHorizontalFlip", "p": 1.0},
    {"name": "RandomCrop", "size": 40},
    {"name": "RandomCrop", "size": 80, "pad_if_needed": True},
    {"name": "Pad", "padding": 7},
    {"name": "CenterCrop", "size": 90},
    {"name": "RandomResizedCrop", "size": 48, "interpolation": "nearest"},
    {"name": "RandomAffine", "degrees": 30, "translate": [0.3, 0.3]},
    {"name": "RandomPerspective", "p": 1.0, "interpolation": "nearest"},
    {"name": "ScaleJitter", "target_size": [60, 60], "scale_range": [0.5, 2.0],
     "interpolation": "nearest"},
]  # fmt: skip


@pytest.mark.parametrize("table", MOVES, ids=[f"{t['name']}-{i}" for i, t in enumerate(MOVES)])
def test_a_mask_painted_into_the_image_stays_where_its_paint_is(table: dict[str, Any]) -> None:
    torch.manual_seed(3)
    moved, mask = WithMask(build_transform((table,), "data.augment"))(*painted())
    expected = torch.where(mask == VOID, 0, 10 * (mask + 1))
    assert mask.dtype == torch.uint8
    assert moved.shape[1:] == mask.shape
    assert int((moved[0] == expected).sum()) >= 0.99 * mask.numel()
    assert set(mask.unique().tolist()) <= {*range(CLASSES), VOID}
    if table["name"] in ("Pad", "CenterCrop"):
        assert bool((mask[0] == VOID).all())


def test_a_fill_is_a_colour_of_the_image_alone() -> None:
    table = {"name": "Pad", "padding": 3, "fill": [124, 116, 104]}
    image, mask = WithMask(build_transform((table,), "data.augment"))(*painted())
    assert image[:, 0, 0].tolist() == [124, 116, 104]
    assert int(mask[0, 0]) == VOID
    alone = build_transform((table,), "data.augment")(painted()[0])
    assert alone[:, 0, 0].tolist() == [124, 116, 104]


def test_colours_change_without_the_mask() -> None:
    image, mask = painted()
    table = {"name": "ColorJitter", "brightness": [0.5, 0.5]}
    changed, same = WithMask(build_transform((table,), "data.augment"))(image, mask)
    assert torch.equal(same, mask)
    assert not torch.equal(changed, image)


def test_transforms_that_know_no_masks_are_refused(tmp_path: Path) -> None:
    write_voc(tmp_path)
    spec = voc_spec(tmp_path, augment=({"name": "AutoAugment"}, {"name": "Resize", "size": [9, 9]}))
    with pytest.raises(RecipeError, match=r"data\.augment fails on an image"):
        load_data(spec, seed=0)


# -- data sets -------------------------------------------------------------------------------------

SQUARE = ({"name": "Resize", "size": [24, 24]},)
JITTER = (
    {"name": "ScaleJitter", "target_size": [24, 24], "scale_range": [0.5, 2.0]},
    {"name": "RandomCrop", "size": 24, "pad_if_needed": True},
    {"name": "RandomHorizontalFlip"},
)


def voc_spec(root: Path, **given: Any) -> DataSpec:
    tables: dict[str, Any] = {"augment": JITTER, "prepare": SQUARE, "download": False, **given}
    return DataSpec(name="voc-segmentation", root=str(root), **tables)


def batches(data: Any, epoch: int = 1, first: int = 0) -> list[tuple[Tensor, Tensor]]:
    return [(x.clone(), y.clone()) for x, y in data.train_batches(epoch, 2, first)]


def same(one: list[tuple[Tensor, Tensor]], two: list[tuple[Tensor, Tensor]]) -> bool:
    pairs = zip(one, two, strict=True)
    return all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in pairs)


def test_voc_is_read_as_torchvision_reads_it(tmp_path: Path) -> None:
    from torchvision.datasets import VOCSegmentation

    write_voc(tmp_path)
    data = load_data(voc_spec(tmp_path), seed=0)
    assert isinstance(data, FolderData)
    assert (data.train_size, data.test_size, data.classes) == (4, 3, 21)
    assert data.labels[:2] == ("background", "aeroplane")
    assert data.task == Segmentation(21)
    for split, image_set in ((data.train_set, "train"), (data.test_set, "val")):
        for index, (photo, mask) in enumerate(VOCSegmentation(str(tmp_path), image_set=image_set)):
            image, actual = split[index]
            assert torch.equal(image, v2.functional.pil_to_tensor(photo))
            assert torch.equal(torch.as_tensor(actual), torch.from_numpy(np.array(mask)))
            assert VOID in torch.as_tensor(actual)


def test_batches_follow_from_seed_epoch_and_step_whoever_reads_them(tmp_path: Path) -> None:
    write_voc(tmp_path)
    data = load_data(voc_spec(tmp_path), seed=0)
    actual = batches(data)
    images, labels = actual[0]
    assert images.shape == (2, 3, 24, 24)
    assert (labels.shape, labels.dtype) == ((2, 24, 24), torch.int64)
    assert same(actual, batches(load_data(voc_spec(tmp_path, workers=2), seed=0)))
    assert same(actual[1:], batches(data, first=1))
    assert not same(actual, batches(data, epoch=2))
    halves = [batches(data.to(CPU, Processes(rank, 2))) for rank in range(2)]
    joined = [tuple(map(torch.cat, zip(*pair, strict=True))) for pair in zip(*halves, strict=True)]
    assert same(actual, joined)  # type: ignore[arg-type]


def test_trainaug_is_asked_for_and_finds_its_masks(tmp_path: Path) -> None:
    write_voc(tmp_path, more=("2009_000001", "2009_000002"))
    assert load_data(voc_spec(tmp_path), seed=0).train_size == 4
    data = load_data(voc_spec(tmp_path, images="trainaug"), seed=0)
    assert data.train_size == 6
    assert isinstance(data, FolderData)
    assert all(len(torch.as_tensor(data.train_set[i][1]).unique()) == 3 for i in range(6))


def test_missing_files_are_reported_with_their_address(tmp_path: Path) -> None:
    with pytest.raises(DataError) as missing:
        load_data(voc_spec(tmp_path), seed=0)
    assert "host.robots.ox.ac.uk" in missing.value.remedy
    assert "terms of use" in missing.value.remedy
    write_voc(tmp_path)
    with pytest.raises(DataError, match=r"trainaug\.txt cannot be read") as lacking:
        load_data(voc_spec(tmp_path, images="trainaug"), seed=0)
    assert "SBD" in lacking.value.remedy


def spoil(folder: Path, how: str) -> str:
    """Damage the second training image's files; return a part of what is said of it."""
    stem = "2007_000001"
    mask = folder / "SegmentationClass" / f"{stem}.png"
    match how:
        case "image":
            (folder / "JPEGImages" / f"{stem}.jpg").write_bytes(b"\xff\xd8\xff nothing")
            return "cannot be read as an image"
        case "no mask":
            mask.unlink()
            return "no such file"
        case "damaged mask":
            mask.write_bytes(mask.read_bytes()[:60])
            return "cannot be read as an image"
        case "no image":
            mask.write_bytes(b"nothing")
            return "cannot be read as an image: its format is unknown"
        case "16 bits":
            Image.fromarray(np.zeros((50, 40), np.uint16)).save(mask)
            return "has 16-bit grey"
        case "size":
            save_mask(mask, np.zeros((9, 9), np.uint8))
            return "9×9"
        case "class":
            save_mask(mask, np.full((50, 40), 77, np.uint8))
            return "has class 77"
    Image.new("RGB", (40, 50)).save(mask)
    return "has colours"


SPOILED = ("image", "no mask", "damaged mask", "no image", "16 bits", "size", "class", "colours")


@pytest.mark.parametrize("how", SPOILED)
def test_damage_is_named_and_data_check_lists_it(tmp_path: Path, how: str) -> None:
    said = spoil(write_voc(tmp_path), how)
    data = load_data(voc_spec(tmp_path), seed=0)
    with pytest.raises(DamagedData, match="2007_000001") as raised:
        batches(data)
    assert said in raised.value.message
    if how in ("class", "size"):  # the check starts processes: two of them are enough
        findings = check_data(voc_spec(tmp_path), seed=0, report=lambda *_: None)
        assert [said in problem.reason for problem in findings.problems] == [True]
        assert not findings.passed


def test_a_sound_set_passes_and_classes_are_counted_by_images(tmp_path: Path) -> None:
    write_voc(tmp_path, train=3)
    findings = check_data(voc_spec(tmp_path), seed=0, report=lambda *_: None)
    assert findings.passed
    train = findings.splits[0]
    assert train.per_class[:5] == (3, 1, 1, 1, 0)


@pytest.mark.slow
def test_the_embedded_canvases_are_the_same_for_every_seed() -> None:
    spec = DataSpec(name="embedded-segmentation")
    data, other = (load_data(spec, seed=seed) for seed in (0, 1))
    assert isinstance(data, MemoryData)
    assert isinstance(other, MemoryData)
    assert torch.equal(data.test_images, other.test_images)
    assert torch.equal(data.train_labels, other.train_labels)
    assert data.train_images.shape == (3000, 1, 48, 48)
    assert data.task == Segmentation(11)
    assert set(data.train_labels.unique().tolist()) == {*range(11), VOID}
    garments = data.test_images.squeeze(1).float()
    inside = (data.test_labels != 0) & (data.test_labels != VOID)
    assert float(garments[inside].min()) >= 48  # where a garment is, its own grey is seen
