"""From the bytes of an image file to its pixels, as a viewer shows them.

JPEG goes through torchvision's decoder, the rest through Pillow. Both use libjpeg-turbo and give
the same pixels, bit for bit; a JPEG of 500×400 takes 1.06 ms here against Pillow's 1.42 ms (one
core). torchvision will hand its decoders to another library some day: without them, and for the
rare JPEG that only Pillow reads, Pillow decodes. Pillow reads the header of every file first (0.07
ms): its format, how many pixels it declares, and how it is turned.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch
import torchvision
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from prunec.datasets.pixels import UnclearPixels, kind_of, rgb, turned
from prunec.errors import DamagedData
from prunec.recipe.network_and_data import MOST_PIXELS
from prunec.wording import first_line

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
"""Pillow's names of the formats that reach a decoder; the others of its forty never do."""
NAMES = "JPEG, PNG, WebP, BMP, GIF, PPM, PGM or TIFF"
TIFF = b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"  # how such a file begins
JPEG = "JPEG", "MPO"  # the second: several in one file, of which the first is shown
ORIENTATION = 0x0112  # the EXIF tag that says how an image is turned


def decode(content: bytes, name: str, most: int = MOST_PIXELS) -> Tensor:
    """Return the image that ``content`` holds, uint8 [3, H, W], as a viewer shows it.

    It is turned as its EXIF orientation says; grey becomes RGB, 16 bits become the upper 8, and
    floats from 0 to 1 become 0 to 255. Of an animation it is the first frame. Transparency is left
    out: the colours are those that the file holds.

    Args:
        content: a file's bytes, in one of `FORMATS`.
        name: where it lies, for the error.
        most: pixels that it may declare: more are refused before anything is decoded.

    Raises:
        DamagedData: it is no image, is damaged, declares too many pixels, or holds numbers of which
            nobody says what is white.
    """
    with opened(content, name, most) as image:
        pixels = _by_torchvision(content, image)
        return turned(rgb(image), orientation(image)) if pixels is None else pixels


def kind(content: bytes, name: str, most: int = MOST_PIXELS) -> str:
    """Return what kind of image ``content`` holds: ``PNG, grey of 16 bits``; decodes nothing.

    Raises:
        DamagedData: its header cannot be read, or as :func:`decode` has it.
    """
    with opened(content, name, most) as image:
        return kind_of(image, is_turned=orientation(image) not in (0, 1))


@contextmanager
def opened(
    content: bytes, name: str, most: int, formats: tuple[str, ...] = FORMATS
) -> Iterator[Image.Image]:
    """Yield the image with its header read; what goes wrong in the block names the file.

    Raises:
        DamagedData: it cannot be read, or it declares more than ``most`` pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on large images and odd metadata, without a file's name
        try:
            with Image.open(io.BytesIO(content), formats=formats) as image:
                if image.width * image.height > most:
                    shape = f"{image.height}×{image.width} (H×W)"
                    raise _too_large(name, f"{image.width * image.height:,}, {shape}", most)
                yield image
        except DamagedData:
            raise
        except Image.DecompressionBombError as error:
            raise _too_large(name, "more than Pillow opens", most) from error
        except Exception as error:  # Pillow raises what its formats happen to raise
            raise damaged(name, reason(content, error)) from error


def orientation(image: Image.Image) -> int:
    """Return how an image is turned, 1 to 8, as EXIF counts; 1 where nothing readable says it."""
    with suppress(Exception):  # damaged EXIF: a viewer shows the image as it lies there
        return int(image.getexif().get(ORIENTATION, 1))
    return 1


def damaged(name: str, why: str) -> DamagedData:
    """Return the error for an image that cannot be read or decoded."""
    return DamagedData(
        f"{name} cannot be read as an image: {why}",
        remedy="Mend or remove it; `prunec data check RECIPE` lists every such file.",
    )


def reason(content: bytes, error: Exception) -> str:
    """Return why Pillow refuses a file: never its own words for bytes that it does not know."""
    if not content:
        return "it is empty"
    if isinstance(error, UnidentifiedImageError):
        if content.startswith(TIFF):
            return "its kind of TIFF is unknown, or it is damaged"
        return f"its format is unknown: it is not {NAMES}"
    return str(error) if isinstance(error, UnclearPixels) else first_line(error)


def _too_large(name: str, declared: str, most: int) -> DamagedData:
    return DamagedData(
        f"{name} cannot be read as an image: it declares too many pixels ({declared}); "
        f"data.max_pixels = {most} are allowed",
        remedy="Mend or remove it, or allow more: --set data.max_pixels=N. "
        "`prunec data check RECIPE` lists every such file.",
    )


def _by_torchvision(content: bytes, image: Image.Image) -> Tensor | None:
    """A JPEG's pixels; None for other formats, and for what Pillow has the last word on."""
    if image.format not in JPEG or _decode_jpeg is None:
        return None
    with suppress(RuntimeError):  # Pillow has the better reason
        return turned(_decode_jpeg(content), orientation(image))
    return None


def _torchvision_decoder() -> Callable[[bytes], Tensor] | None:
    try:
        decode_jpeg = torchvision.io.decode_jpeg
        mode = torchvision.io.ImageReadMode.RGB
        torch.ops.image.decode_jpeg  # noqa: B018  torchvision may be built without it
    except (AttributeError, RuntimeError):
        return None

    def decoded(content: bytes) -> Tensor:
        pixels: Tensor = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode)
        return pixels

    return decoded


_decode_jpeg = _torchvision_decoder()
