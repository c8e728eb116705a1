"""Data: batches depend on (seed, epoch) alone, and every loader reads torchvision's own format."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sampling import slow_case
from small_training import CPU, small_data
from torch import Tensor

from prunec.batches.batches import Data
from prunec.batches.data import load_data
from prunec.errors import DataError
from prunec.processes import Processes
from prunec.recipe import DataSpec

FLIP: dict[str, Any] = {"name": "RandomHorizontalFlip"}
CROP: dict[str, Any] = {"name": "RandomCrop", "size": 28, "padding": 4}


@pytest.fixture(scope="module")
def embedded() -> Data:
    return load_data(DataSpec(augment=(CROP, FLIP), mean=(0.286,), std=(0.353,)), seed=0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of images of several sizes; the class is the red value, the image the green."""
    for split, count in (("train", 6), ("val", 3)):
        for label in range(3):
            folder = tmp_path / split / f"class{label}"
            folder.mkdir(parents=True)
            for k in range(count):
                colour = (80 * label, 40 * k, 255)
                Image.new("RGB", (20 + k, 24), colour).save(folder / f"{k}.png")
    return tmp_path


def photo_spec(root: Path, **more: Any) -> DataSpec:
    prepare = ({"name": "Resize", "size": 18}, {"name": "CenterCrop", "size": 16})
    augment = ({"name": "RandomCrop", "size": 16}, FLIP)
    given = {"prepare": prepare, "augment": augment, **more}
    return DataSpec(name="imagefolder", root=str(root), **given)


def all_of(batches: Any) -> tuple[Tensor, Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_the_embedded_set_needs_nothing(embedded: Data) -> None:
    assert (embedded.classes, embedded.shape) == (10, (1, 28, 28))
    assert (embedded.train_size, embedded.test_size) == (12000, 2000)
    images, labels = all_of(embedded.test_batches(512))
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert labels.bincount().tolist() == [200] * 10
    assert abs(float(images.mean())) < 0.05
    assert abs(float(images.std()) - 1) < 0.05


def test_batches_depend_on_seed_and_epoch_alone() -> None:
    first = all_of(small_data().train_batches(3, 16))
    torch.rand(5)
    again = all_of(small_data().train_batches(3, 16))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (small_data().train_batches(4, 16), small_data(seed=1).train_batches(3, 16)):
        assert not torch.equal(all_of(other)[0], first[0])


def test_whoever_takes_a_batch_keeps_its_generator() -> None:
    torch.manual_seed(1)
    expected = torch.rand(6)
    torch.manual_seed(1)
    drawn = [torch.rand(1) for _ in small_data().train_batches(0, 16)]
    assert torch.equal(torch.cat(drawn), expected)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("kind", ["memory", slow_case("folder")])
def test_processes_share_every_batch_and_any_step_is_a_beginning(
    photos: Path, kind: str, count: int
) -> None:
    """Three processes cut through chunks of four: the images are the same whoever augments them."""
    data = small_data() if kind == "memory" else load_data(photo_spec(photos, workers=1), seed=0)
    whole = list(data.train_batches(2, 6))
    parts = [data.to(CPU, Processes(rank, count)) for rank in range(count)]
    shared = zip(*(part.train_batches(2, 6, first=1) for part in parts), strict=True)
    for batch, of_ranks in zip(whole[1:], shared, strict=True):
        images, labels = all_of(of_ranks)
        assert torch.equal(images, batch[0])
        assert torch.equal(labels, batch[1])
    tested = [label for part in parts for _, labels in part.test_batches(4) for label in labels]
    assert len(tested) == data.test_size


def test_a_batch_that_cannot_be_shared_equally_is_reported() -> None:
    with pytest.raises(DataError, match="batch of 16 cannot be shared equally by 3") as caught:
        next(small_data().to(CPU, Processes(0, 3)).train_batches(0, 16))
    assert "multiple of 3" in caught.value.remedy


def test_an_epoch_holds_every_image_once() -> None:
    data = small_data()
    assert sorted(torch.cat(data.batch_order(5, 16)).tolist()) == list(range(96))
    plain = all_of(small_data().train_batches(0, 96))[1]
    assert torch.equal(plain, data.train_labels[data.order(0)])


def test_augmentation_touches_training_images_only(embedded: Data) -> None:
    plain = load_data(DataSpec(mean=(0.286,), std=(0.353,)), seed=0)
    one, other = (next(iter(data.train_batches(0, 64))) for data in (plain, embedded))
    assert torch.equal(one[1], other[1])
    assert not torch.equal(one[0], other[0])
    one, other = (next(iter(data.test_batches(64))) for data in (plain, embedded))
    assert torch.equal(one[0], other[0])


def test_different_sizes_of_training_and_test_images_are_reported() -> None:
    spec = DataSpec(augment=({"name": "RandomCrop", "size": 24},))
    with pytest.raises(DataError, match=r"1×24×24 .* 1×28×28") as caught:
        load_data(spec, seed=0)
    assert "data.prepare" in caught.value.remedy


def test_prepare_sizes_both_where_augment_is_empty() -> None:
    spec = DataSpec(prepare=({"name": "Pad", "padding": 2},))
    data = load_data(spec, seed=0)
    assert data.shape == (1, 32, 32)
    assert next(iter(data.train_batches(0, 8)))[0].shape == (8, 1, 32, 32)


def test_a_folder_of_images(photos: Path) -> None:
    data = load_data(photo_spec(photos), seed=0)
    assert data.labels == ("class0", "class1", "class2")
    assert (data.train_size, data.test_size, data.shape) == (18, 9, (3, 16, 16))
    for batches in (data.train_batches(0, 4), data.test_batches(4)):
        images, labels = all_of(batches)
        red = (images[:, 0, 8, 8] * 0.5 + 0.5) * 255
        assert torch.equal(red.round().long(), 80 * labels)
    assert all_of(data.test_batches(4))[1].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_workers_change_nothing(photos: Path) -> None:
    one, two = (load_data(photo_spec(photos, workers=n), seed=0) for n in (0, 1))
    for a, b in (
        (d.train_batches(1, 5) for d in (one, two)),
        (d.test_batches(5) for d in (one, two)),
    ):
        assert all(torch.equal(x, y) for x, y in zip(all_of(a), all_of(b), strict=True))


def test_classes_of_one_half_only_are_reported(photos: Path) -> None:
    (photos / "val" / "class2").rename(photos / "val" / "class3")
    with pytest.raises(DataError, match="different classes: class2, class3 are only in one"):
        load_data(photo_spec(photos), seed=0)


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images were found in .*train") as caught:
        load_data(photo_spec(tmp_path), seed=0)
    assert "train/CLASS/" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("fashion-mnist", "train-images-idx3-ubyte.gz"),
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python.tar.gz"),
        ("imagenet", "ILSVRC2012_img_train.tar"),
    ],
)
def test_missing_files_are_named_with_their_place(tmp_path: Path, name: Any, file: str) -> None:
    spec = DataSpec(name=name, root=str(tmp_path), download=False)
    with pytest.raises(DataError) as caught:
        load_data(spec, seed=0)
    assert file in str(caught.value)
    assert str(tmp_path) in caught.value.remedy
    assert "data.root" in caught.value.remedy


def test_a_failed_download_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(DataError, match="CIFAR-10 cannot be downloaded") as caught:
        load_data(DataSpec(name="cifar10", root=str(tmp_path)), seed=0)
    assert "https://www.cs.toronto.edu" in caught.value.remedy


def test_fashion_mnist_is_read_from_its_archives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = torchvision.datasets.FashionMNIST
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    resources = []
    for name, _ in kind.resources:
        shape = (20, 28, 28) if "images" in name else (20,)
        values = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8) % 10
        header = struct.pack(f">{1 + len(shape)}I", 0x800 + len(shape), *shape)
        content = gzip.compress(header + values.tobytes())
        (folder / name).write_bytes(content)
        resources.append((name, hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(kind, "resources", resources)
    data = load_data(DataSpec(name="fashion-mnist", root=str(tmp_path), download=False), seed=0)
    assert (data.classes, data.shape, data.train_size) == (10, (1, 28, 28), 20)
    assert all_of(data.test_batches(7))[1].tolist() == [k % 10 for k in range(20)]


def test_cifar_is_read_from_its_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = torchvision.datasets.CIFAR10
    folder = tmp_path / "build" / kind.base_folder
    folder.mkdir(parents=True)
    sums = {}
    for name, _ in [*kind.train_list, *kind.test_list, (kind.meta["filename"], "")]:
        pixels = np.arange(4 * 3072, dtype=np.int64).reshape(4, 3072).astype(np.uint8)
        content: dict[str, object] = {"data": pixels, "labels": [0, 1, 2, 9]}
        if "meta" in name:
            content = {"label_names": [f"thing{k}" for k in range(10)]}
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        sums[name] = hashlib.md5(data).hexdigest()
    with tarfile.open(tmp_path / kind.filename, "w:gz") as archive:
        archive.add(folder, kind.base_folder)
    monkeypatch.setattr(kind, "train_list", [(n, sums[n]) for n, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [(n, sums[n]) for n, _ in kind.test_list])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums[kind.meta["filename"]]})
    digest = hashlib.md5((tmp_path / kind.filename).read_bytes()).hexdigest()
    monkeypatch.setattr(kind, "tgz_md5", digest)
    data = load_data(DataSpec(name="cifar10", root=str(tmp_path), download=False), seed=0)
    assert (data.classes, data.shape, data.train_size, data.test_size) == (10, (3, 32, 32), 20, 4)
    images, labels = next(iter(data.test_batches(4)))
    assert labels.tolist() == [0, 1, 2, 9]
    green = ((images[0, 1].flatten() * 0.5 + 0.5) * 255).round().to(torch.uint8)
    assert torch.equal(green, torch.arange(1024, 2048).to(torch.uint8))


def test_imagenet_is_read_once_it_is_unpacked(tmp_path: Path) -> None:
    wnids = [f"n{k:08d}" for k in range(3)]
    names = {wnid: (f"thing {k}", "synonym") for k, wnid in enumerate(wnids)}
    torch.save((names, []), tmp_path / "meta.bin")
    for split in ("train", "val"):
        for wnid in wnids:
            (tmp_path / split / wnid).mkdir(parents=True)
            Image.new("L", (20, 20)).save(tmp_path / split / wnid / "a.JPEG")
    spec = DataSpec(name="imagenet", root=str(tmp_path), download=False)
    data = load_data(spec, seed=0)
    assert data.labels == ("thing 0", "thing 1", "thing 2")
    assert (data.shape, data.train_size) == ((3, 20, 20), 3)
