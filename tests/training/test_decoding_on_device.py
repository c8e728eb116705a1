"""JPEGs that the device decodes: the same order, random numbers and refusals as by workers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from photographs import all_of, noise, spec_of, write_folders, write_shards
from PIL import Image
from torch import Tensor

from prunec.batches import batches, on_device
from prunec.batches.data import load_data
from prunec.errors import DataError, RecipeError
from prunec.recipe import DataSpec

CPU = torch.device("cpu")
AUGMENT = ({"name": "RandomResizedCrop", "size": [24, 24]}, {"name": "RandomHorizontalFlip"})
PREPARE = ({"name": "Resize", "size": [24, 24]},)


def specs(root: Path, name: str = "imagefolder") -> tuple[DataSpec, DataSpec]:
    both = [
        spec_of(root, name, augment=AUGMENT, prepare=PREPARE, decode=decode)
        for decode in ("workers", "device")
    ]
    return both[0], both[1]


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the CPU be a device with a decoder of its own; return how many it decoded at a time."""
    counts: list[int] = []
    own = on_device.jpegs_to

    def jpegs_to(device: torch.device) -> on_device.Decode:
        decode = own(device)

        def counting(contents: list[Tensor]) -> list[Tensor]:
            counts.append(len(contents))
            return decode(contents)

        return counting

    monkeypatch.setattr(batches, "decodes_there", lambda device: True)
    monkeypatch.setattr(on_device, "jpegs_to", jpegs_to)
    return counts


def of_every_kind(root: Path) -> None:
    """Add JPEGs to the PNGs: one turned by its EXIF, a grey one and one for print."""
    first = root / "train" / "class0" / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(io.BytesIO(noise())) as image:
        image.save(first, exif=exif)
    (first.parent / "grey.jpg").write_bytes(noise(mode="L"))
    (first.parent / "print.jpg").write_bytes(noise(mode="CMYK"))


@pytest.mark.parametrize("name", ["imagefolder", "webdataset"])
def test_batches_are_those_of_workers(name: str, tmp_path: Path, there: list[int]) -> None:
    if name == "webdataset":
        write_shards(tmp_path, {"train": [3, 3], "val": [3]})
    else:
        write_folders(tmp_path)
        of_every_kind(tmp_path)
    pair = [load_data(spec, seed=3).to(CPU) for spec in specs(tmp_path, name)]
    for epoch in (0, 1):
        by_workers, by_device = (all_of(data.train_batches(epoch, 3)) for data in pair)
        assert torch.equal(by_workers[0], by_device[0])
        assert torch.equal(by_workers[1], by_device[1])
    tests = [all_of(data.test_batches(2)) for data in pair]
    assert torch.equal(tests[0][0], tests[1][0])
    assert (sum(there) > 0) == (name == "imagefolder")  # the shards' images are PNGs


def test_a_damaged_image_is_refused_with_its_name(tmp_path: Path, there: list[int]) -> None:
    """The device says that one of a batch is damaged; the CPU then says which."""
    write_folders(tmp_path)
    wrong = tmp_path / "train" / "class0" / "wrong.jpg"
    content = bytearray(noise())
    place = content.find(b"\xff\xc4")  # the Huffman tables: the header is sound
    content[place + 2 : place + 40] = b"\xff" * 38
    wrong.write_bytes(content)
    data = load_data(specs(tmp_path)[1], seed=3).to(CPU)
    with pytest.raises(DataError, match=wrong.name):
        all_of(data.train_batches(0, 3))


def test_what_cannot_be_read_undecoded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="classified images in folders and shards") as raised:
        on_device.readable([(torch.zeros(3, 2, 2), 0)])  # type: ignore[arg-type]
    assert 'data.decode = "workers"' in str(raised.value)


def test_a_torchvision_without_the_decoder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode_jpeg(*_: Any, **__: Any) -> Any:
        raise RuntimeError("decode_jpegs_cuda: torchvision not compiled with nvJPEG support\nat …")

    monkeypatch.setattr(on_device.torchvision.io, "decode_jpeg", decode_jpeg)
    with pytest.raises(RecipeError, match=r"decodes no JPEG on cuda \(.*nvJPEG support\)") as told:
        on_device.jpegs_to(torch.device("cuda"))
    assert "build for CUDA" in str(told.value)


def test_on_the_cpu_workers_decode(tmp_path: Path) -> None:
    write_folders(tmp_path)
    data = load_data(specs(tmp_path)[1], seed=3).to(CPU)
    loader = data._new_loader(data.train_set, data.augment)  # type: ignore[attr-defined]
    assert loader.finish is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pixels_of_a_gpu_are_near_to_those_of_workers(tmp_path: Path) -> None:
    write_folders(tmp_path)
    of_every_kind(tmp_path)
    device = torch.device("cuda")
    pair = [load_data(spec, seed=3).to(device) for spec in specs(tmp_path)]
    by_workers, by_device = (all_of(data.train_batches(0, 3)) for data in pair)
    assert torch.equal(by_workers[1], by_device[1])
    off = (by_workers[0] - by_device[0]).abs()
    assert float(off.mean()) < 0.05  # of a deviation of the pixels
