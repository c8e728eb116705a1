"""Every mode and depth of an image is read as a viewer shows it, or refused by name."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_voc import write_voc
from photographs import photograph, spec_of, write_folders, write_shards, write_tar
from PIL import Image, ImageOps
from typer.testing import CliRunner

from prunec.batches.data import load_data
from prunec.batches.data_check import check_data
from prunec.cli.commands import app
from prunec.datasets import decoding
from prunec.datasets.decoding import decode
from prunec.errors import DamagedData
from prunec.recipe import DataSpec

Y, X = np.mgrid[0:20, 0:30]
GREY = (8 * X + Y).astype(np.uint8)
COLOURS = np.stack([GREY, 255 - GREY, GREY[::-1]], 2)


def written(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(content: bytes) -> np.ndarray:
    return decode(content, "x").permute(1, 2, 0).numpy()


def grey_tiff(values: bytes, bits: int, photometric: int = 1, sample_format: int = 1) -> bytes:
    """A TIFF of one strip and one sample, of 20×30 pixels."""
    tags = [(256, 30), (257, 20), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1),
            (278, 20), (279, len(values)), (339, sample_format)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(values)) + values + directory


COLOURED = Image.fromarray(COLOURS)
PALETTE = COLOURED.quantize(64)
NARROW = Image.fromarray(GREY)
SHOWN_AS_THEY_ARE: dict[str, tuple[bytes, Image.Image]] = {
    "RGB": (written(COLOURED, "PNG"), COLOURED),
    "RGBA": (written(COLOURED.convert("RGBA"), "PNG"), COLOURED),
    "grey": (written(NARROW, "PNG"), NARROW),
    "grey with alpha": (written(NARROW.convert("LA"), "PNG"), NARROW),
    "palette": (written(PALETTE, "PNG"), PALETTE),
    "palette, transparent": (written(PALETTE, "PNG", transparency=3), PALETTE),
    "palette, many transparent": (written(PALETTE, "PNG", transparency=bytes(64)), PALETTE),
    "palette, TIFF": (written(PALETTE, "TIFF"), PALETTE),
    "palette, GIF": (written(PALETTE, "GIF"), PALETTE),
    "black and white": (written(NARROW.convert("1"), "PNG"), NARROW.convert("1")),
    "black and white, TIFF": (written(NARROW.convert("1"), "TIFF"), NARROW.convert("1")),
    "RGB, BMP": (written(COLOURED, "BMP"), COLOURED),
    "RGB, PPM": (written(COLOURED, "PPM"), COLOURED),
    "grey, PGM": (written(NARROW, "PPM"), NARROW),
    "RGB, WebP": (written(COLOURED, "WEBP", lossless=True), COLOURED),
    "CMYK, TIFF": (written(COLOURED.convert("CMYK"), "TIFF"), COLOURED),
    "white is zero": (grey_tiff((255 - GREY).tobytes(), 8, photometric=0), NARROW),
}


@pytest.mark.parametrize("name", SHOWN_AS_THEY_ARE)
def test_bytes_are_shown_as_they_are(name: str) -> None:
    content, image = SHOWN_AS_THEY_ARE[name]
    assert np.array_equal(read(content), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["YCbCr", "LAB"])
def test_other_colours_become_rgb(mode: str) -> None:
    wanted = COLOURED if mode == "YCbCr" else COLOURED.convert("LAB")
    difference = read(written(COLOURED.convert(mode), "TIFF")).astype(int) - np.asarray(
        wanted.convert("RGB")
    )
    assert np.abs(difference).max() <= 3  # of rounding in between


WIDE = GREY.astype(np.uint16) * 257
SCALED: dict[str, bytes] = {
    "16 bits, PNG": written(Image.fromarray(WIDE), "PNG"),
    "16 bits, TIFF": written(Image.fromarray(WIDE), "TIFF"),
    "16 bits, PGM": written(Image.fromarray(WIDE), "PPM"),
    "16 bits, white is zero": grey_tiff((65535 - WIDE).astype("<u2").tobytes(), 16, 0),
    "floats": written(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"),
    "floats, PFM": b"Pf\n30 20\n-1.0\n" + (GREY[::-1] / 255).astype("<f4").tobytes(),
}


@pytest.mark.parametrize("name", SCALED)
def test_wide_numbers_are_scaled_to_what_is_shown(name: str) -> None:
    assert np.array_equal(read(SCALED[name]), np.repeat(GREY[:, :, None], 3, 2))


def test_twelve_bits_are_stretched() -> None:
    first, second = (GREY.astype(int) << 4)[:, ::2], (GREY.astype(int) << 4)[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 2)
    shown = read(grey_tiff(packed.astype(np.uint8).tobytes(), 12))
    assert np.array_equal(shown, np.repeat(GREY[:, :, None], 3, 2))


def test_sixteen_bits_of_colour_are_shown_as_their_upper_bytes() -> None:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in COLOURS.astype(np.uint16) * 257)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 30, 20, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    assert np.array_equal(read(content), COLOURS)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (written(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "floats from 0 to 251"),
        (written(Image.fromarray(GREY / np.float32(255) - 0.1), "TIFF"), "floats from -0.1"),
        (written(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"), "floats from nan"),
        (grey_tiff((GREY / 255).astype("<f4").tobytes(), 32, 0, 3), "of which 0 is white"),
        (written(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "signed or 32-bit whole numbers"),
        (grey_tiff(GREY.astype("<i2").tobytes(), 16, 1, 2), "signed or 32-bit whole numbers"),
        (grey_tiff(bytes(20 * 30 * 8), 64, 1, 3), "its kind of TIFF is not supported"),
    ],
)
def test_numbers_of_which_nobody_says_what_is_white_are_refused(content: bytes, why: str) -> None:
    with pytest.raises(DamagedData, match=why):
        decode(content, "x")


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_image_is_turned_as_its_orientation_says(
    kind: str, turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = COLOURED.getexif()
    exif[decoding.ORIENTATION] = turn
    more: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    content = written(COLOURED, kind, exif=exif, **more)
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))
    assert np.array_equal(read(content), wanted)
    monkeypatch.setattr(decoding, "_decode_jpeg", None)
    assert np.array_equal(read(content), wanted)


def test_damaged_exif_turns_nothing() -> None:
    plain = written(COLOURED, "JPEG")
    for exif in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"):
        content = written(COLOURED, "JPEG", exif=exif)
        assert np.array_equal(read(content), read(plain))


@pytest.mark.parametrize("kind", ["TGA", "ICO", "PCX", "SGI", "EPS", "JPEG2000", "DDS"])
def test_a_format_that_is_not_documented_reaches_no_decoder(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = written(COLOURED, kind)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(DamagedData, match="its format is unknown: it is not JPEG, PNG"):
        decode(content, "x.png")


# -- images that declare more than is allowed ------------------------------------------------------


def bomb(kind: str) -> bytes:
    return written(Image.new("L", (400, 300)), kind)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_too_many_pixels_are_refused_before_any_is_decoded(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bomb(kind)
    assert decode(content, "x", most=120_000).shape == (3, 300, 400)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it was decoded"))
    monkeypatch.setattr(decoding, "_decode_jpeg", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(DamagedData, match="120,000, 300×400") as caught:
        decode(content, "x", most=119_999)
    assert "data.max_pixels = 119999" in caught.value.message
    assert "--set data.max_pixels=N" in caught.value.remedy


def test_a_header_of_billions_of_pixels_is_refused() -> None:
    content = bytearray(bomb("PNG"))
    content[16:24] = struct.pack(">II", 100_000, 100_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    with pytest.raises(DamagedData, match=r"too many pixels .*data\.max_pixels"):
        decode(bytes(content), "x")


@pytest.mark.parametrize("road", ["imagefolder", "webdataset", "voc-segmentation"])
def test_the_limit_holds_on_every_road(tmp_path: Path, road: Any) -> None:
    more: dict[str, Any] = {"max_pixels": 1000}
    if road == "imagefolder":
        write_folders(tmp_path, train=2, val=1)
        (tmp_path / "val" / "class0" / "big.png").write_bytes(bomb("PNG"))
    elif road == "webdataset":
        write_shards(tmp_path, {"train": [3], "val": [2]})
        write_tar(tmp_path / "val-000001.tar", [("big.jpg", bomb("JPEG")), ("big.cls", b"0")])
    else:
        folder = write_voc(tmp_path)
        more = {"max_pixels": 5000, "download": False}
        mask = folder / "SegmentationClass" / "2008_000001.png"
        Image.new("L", (100, 100)).save(mask)
    findings = check_data(spec_of(tmp_path, road, **more), seed=0, report=lambda *_: None)
    assert [problem.split for problem in findings.problems] == ["test"]
    assert "too many pixels" in findings.problems[0].reason
    assert f"data.max_pixels = {more['max_pixels']}" in findings.problems[0].reason


def test_grey_masks_of_few_bits_are_no_classes(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    path = folder / "SegmentationClass" / "2007_000000.png"
    content = bytearray(path.read_bytes())
    with Image.open(path) as mask:
        rows = b"".join(b"\0" + bytes(-(-mask.width // 2)) for _ in range(mask.height))
        header = struct.pack(">IIBBBBB", mask.width, mask.height, 4, 0, 0, 0, 0)
    content = bytearray(b"\x89PNG\r\n\x1a\n")
    for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        content += struct.pack(">I", len(body)) + name + body
        content += struct.pack(">I", zlib.crc32(name + body))
    path.write_bytes(content)
    with pytest.raises(DamagedData, match="4-bit grey, scaled"):
        load_data(spec_of(tmp_path, "voc-segmentation", download=False), seed=0)


# -- what a set holds ------------------------------------------------------------------------------


def test_the_check_says_which_kinds_there_are_and_what_was_left_out(tmp_path: Path) -> None:
    write_folders(tmp_path, train=2, val=1)
    folder = tmp_path / "train" / "class1"
    exif = COLOURED.getexif()
    exif[decoding.ORIENTATION] = 6
    (folder / "turned.JPG").write_bytes(written(COLOURED, "JPEG", exif=exif))
    (folder / "wide.Png").write_bytes(written(Image.fromarray(WIDE), "PNG"))
    frames = [PALETTE, PALETTE.rotate(180)]
    (folder / "film.gif").write_bytes(
        written(frames[0], "GIF", save_all=True, append_images=frames[1:])
    )
    for name in (".DS_Store", "._wide.png", "notes.txt", "clip.mp4", "README"):
        (folder / name).write_bytes(b"x")
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    findings = check_data(spec_of(tmp_path, "imagefolder"), seed=0, report=lambda *_: None)
    assert findings.passed
    assert findings.splits[0].kinds == {
        "PNG, RGB": 6,
        "GIF, palette, the first of several": 1,
        "JPEG, RGB, turned by its orientation": 1,
        "PNG, grey of 16 bits": 1,
    }
    assert findings.splits[1].kinds == {"PNG, RGB": 3}
    assert findings.left_out == {"*.mp4": 1, "*.txt": 1, "hidden files": 2, "no suffix": 1}
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'name = "r"\n[model]\nname = "resnet18"\n[data]\nname = "imagefolder"\n'
        f'root = "{tmp_path}"\nprepare = [{{ name = "Resize", size = [16, 16] }}]\n'
        '[train]\nepochs = 1\n[[pass]]\nname = "train-dense"\n'
    )
    told = CliRunner().invoke(app, ["data", "check", str(recipe)]).output
    assert "JPEG, RGB, turned by its orientation" in told
    assert "Skipped, not images: 1 *.mp4, 1 *.txt, 2 hidden files, 1 no suffix" in told


def test_files_are_found_in_torchvisions_order(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    write_folders(tmp_path, train=4, val=1)
    deeper = tmp_path / "train" / "class1" / "deeper"
    deeper.mkdir()
    (deeper / "000000.png").write_bytes(photograph(1, 1))
    data: Any = load_data(spec_of(tmp_path, "imagefolder"), seed=0)
    names = [data.train_set.name(i) for i in range(data.train_size)]
    assert names == [path for path, _ in ImageFolder(str(tmp_path / "train")).samples]


def test_the_limit_is_bounded_by_what_pillow_opens() -> None:
    assert DataSpec().max_pixels == decoding.MOST_PIXELS
    with pytest.raises(ValueError, match="less than or equal to 178956970"):
        DataSpec(max_pixels=10**9)
