"""Failures of images and workers are reported as a message, not as a traceback."""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import signal
from collections.abc import Iterable, Iterator
from copy import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from photographs import all_of, noise, photograph, spec_of, write_folders
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from prunec.batches.data import load_data
from prunec.batches.loading import Items, Loader
from prunec.datasets import decoding
from prunec.datasets.decoding import decode
from prunec.errors import DamagedData, DataError

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _impatient() -> Iterator[None]:
    """torch looks after its workers, and waits for those that died, in periods of five seconds."""
    period = 0.2
    look = "torch.utils.data.dataloader._MultiProcessingDataLoaderIter._try_get_data.__defaults__"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", period)
        patch.setattr(look, (period,))
        yield
        gc.collect()  # what waits for the dead as it is thrown away does so here


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folders(tmp_path)


def told(batches: Iterable[Any]) -> DataError:
    """Error that ends the batches; a copy, as pytest's would keep frames and so the workers."""
    try:
        list(batches)
    except DataError as error:
        return copy(error)
    raise AssertionError("nothing was wrong")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_both_decoders_see_the_same_pixels(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = noise((61, 47), mode=mode)
    fast = decode(content, "a.jpg")
    monkeypatch.setattr(decoding, "_decode_jpeg", None)
    assert torch.equal(fast, decode(content, "a.jpg"))
    assert (fast.shape, fast.dtype) == ((3, 47, 61), torch.uint8)


@pytest.mark.parametrize("kind", ["png", "webp", "bmp", "gif", "tiff"])
def test_other_formats_are_read_whatever_their_name(kind: str, tmp_path: Path) -> None:
    pixels = decode(photograph(17, 2, kind), "a.jpg")
    assert pixels.shape == (3, 24, 20)
    if kind in ("png", "bmp", "tiff"):
        assert pixels[:, 3, 3].tolist() == [160, 17, 0]


def test_what_pillow_warns_of_is_not_said_without_a_name(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8))
    image.info["transparency"] = bytes(range(3))
    image.putpalette([1, 2, 3, 4, 5, 6, 7, 8, 9])
    image.save(tmp_path / "a.png")
    assert decode((tmp_path / "a.png").read_bytes(), "a.png")[:, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"<html>not found</html>", "its format is unknown"),
        (noise()[:-40], "image file is truncated"),
        (noise()[:300], "image file is truncated|broken data stream|cannot"),
        (photograph(1, 1)[:40], "."),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_is_named(root: Path, content: bytes, reason: str, workers: int) -> None:
    (root / "val" / "class1" / "000004.png").write_bytes(content)
    data = load_data(spec_of(root, "imagefolder", workers=workers), seed=0)
    error = told(data.test_batches(4))
    assert isinstance(error, DamagedData)
    assert f"{root}/val/class1/000004.png cannot be read as an image: " in error.message
    assert "Traceback" not in error.message
    assert "prunec data check" in error.remedy
    with pytest.raises(DamagedData, match=reason):
        decode(content, "x")


def test_a_file_that_went_away_is_named(root: Path) -> None:
    data = load_data(spec_of(root, "imagefolder"), seed=0)
    (root / "val" / "class2" / "000008.png").unlink()
    with pytest.raises(DamagedData, match=r"000008\.png cannot be .*: no such file"):
        list(data.test_batches(4))


@pytest.mark.parametrize("workers", [0, 1])
def test_transforms_that_fit_the_first_image_only_are_reported(root: Path, workers: int) -> None:
    small = root / "val" / "class2" / "000005.png"
    small.write_bytes(photograph(5, 2, size=(12, 12)))
    crop = ({"name": "RandomCrop", "size": 16},)
    data = load_data(spec_of(root, "imagefolder", prepare=crop, workers=workers), seed=0)
    error = told(data.test_batches(9))
    assert "000005.png, an image of 3×12×12 (C×H×W), does not fit" in error.message
    assert "Resize" in error.remedy


@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_different_sizes_are_reported(root: Path, workers: int) -> None:
    (root / "val" / "class0" / "000003.png").write_bytes(photograph(3, 0, size=(30, 24)))
    data = load_data(spec_of(root, "imagefolder", prepare=(), augment=(), workers=workers), seed=0)
    message = r"class0/000000\.png comes out as 3×24×20 .*class0/000003\.png as 3×24×30"
    error = told(data.test_batches(9))
    assert re.search(message, error.message)
    assert "CenterCrop" in error.remedy


def test_a_worker_does_not_complain_without_a_name(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(noise((200, 160)))
    content[3000:3300] = bytes(300)
    (root / "val" / "class0" / "000003.png").write_bytes(content)
    data = load_data(spec_of(root, "imagefolder", workers=1), seed=0)
    assert len(all_of(data.test_batches(4))[1]) == 9
    assert not capfd.readouterr().err


class Deadly:
    """Images of which one kills the process that reads it."""

    def __init__(self, death: Any) -> None:
        self.death = death

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 7:
            self.death()
        return torch.zeros(3, 4, 4, dtype=torch.uint8), 0

    def name(self, index: int) -> str:
        return f"image {index}"

    def order(self, generator: torch.Generator) -> Tensor:
        return torch.arange(12)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def ended() -> None:
    os._exit(3)


def no_shared_memory() -> None:
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left")


def nothing() -> None:
    pass


def loader(death: Any) -> Loader:
    normalise = v2.ToDtype(torch.float32, scale=True)
    return Loader(Items(Deadly(death), v2.Identity(), seed=0), 2, CPU, normalise)


BATCHES = [[(0, k), (0, k + 1)] for k in range(0, 12, 2)]


@pytest.mark.parametrize("death", [killed, ended, no_shared_memory])
def test_a_worker_that_dies_is_reported(death: Any) -> None:
    error = told(loader(death).read(BATCHES))
    assert "a process that loads images died" in error.message
    assert "Traceback" not in error.message
    for word in ("data.workers", "--shm-size", "--resume"):
        assert word in error.remedy


def test_a_worker_that_dies_while_nobody_waits_disturbs_nobody() -> None:
    """torch's handler of dying children would raise in the midst of the step."""
    before = signal.getsignal(signal.SIGCHLD)
    batches = loader(nothing).read(BATCHES * 9)
    next(batches)
    assert signal.getsignal(signal.SIGCHLD) is before
    victims = multiprocessing.active_children()
    for victim in victims:
        victim.kill()
    for victim in victims:
        victim.join()
    assert "a process that loads images died" in told(batches).message


@pytest.mark.slow
def test_a_defect_in_a_worker_stays_a_traceback() -> None:
    def defect() -> None:
        raise AssertionError("ours")

    with pytest.raises(AssertionError, match="ours"):
        list(loader(defect).read(BATCHES))
