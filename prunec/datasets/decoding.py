"""Decoding of image files to RGB pixels, as a viewer shows them.

JPEG is decoded by torchvision, everything else by Pillow. Both use libjpeg-turbo and give the same
pixels, bit for bit; a JPEG of 500×400 takes 1.06 ms instead of Pillow's 1.42 ms (one core). Where
torchvision has no decoder, and for the rare JPEG that only Pillow reads, Pillow decodes. Pillow
reads the header of every file first (0.07 ms): format, declared number of pixels, orientation.
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
"""Pillow's names of accepted formats: data from outside must not reach its other forty decoders."""
NAMES = "JPEG, PNG, WebP, BMP, GIF, PPM, PGM or TIFF"
TIFF = b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"  # first bytes: TIFF and BigTIFF, both byte orders
JPEG = "JPEG", "MPO"  # MPO: several JPEGs in one file; the first is decoded
ORIENTATION = 0x0112  # EXIF tag of the orientation


def decode(content: bytes, name: str, most: int = MOST_PIXELS) -> Tensor:
    """Decode an image file to uint8 [3, H, W], as a viewer shows it.

    The image is turned by its EXIF orientation; grey becomes RGB, 16 bits are reduced to the upper
    8, floats from 0 to 1 are scaled to 0 to 255. The first frame of an animation is decoded.
    Transparency is ignored.

    Args:
        content: bytes of the file, in one of `FORMATS`.
        name: path of the file, for errors.
        most: largest number of pixels; an image that declares more is refused undecoded.

    Raises:
        DamagedData: it is not an image, is damaged, declares too many pixels, or has values of
            undefined brightness.
    """
    with opened(content, name, most) as image:
        pixels = _by_torchvision(content, image)
        return turned(rgb(image), orientation(image)) if pixels is None else pixels


def kind(content: bytes, name: str, most: int = MOST_PIXELS) -> str:
    """Return the kind of an image file, ``PNG, grey of 16 bits``, from its header.

    Raises:
        DamagedData: its header cannot be read, or as in :func:`decode`.
    """
    with opened(content, name, most) as image:
        return kind_of(image, is_turned=orientation(image) not in (0, 1))


@contextmanager
def opened(
    content: bytes, name: str, most: int, formats: tuple[str, ...] = FORMATS
) -> Iterator[Image.Image]:
    """Yield the image with its header read; exceptions in the block are reported with its name.

    Raises:
        DamagedData: it cannot be read, or it declares more than ``most`` pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they do not name the file; real problems raise
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
        except Exception as error:  # any exception: each format of Pillow raises its own kinds
            raise damaged(name, reason(content, error)) from error


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 to 8; 1, upright, where it is not readable."""
    with suppress(Exception):  # damaged EXIF: viewers ignore it
        return int(image.getexif().get(ORIENTATION, 1))
    return 1


def damaged(name: str, why: str) -> DamagedData:
    """Return the error for an image that cannot be read or decoded."""
    return DamagedData(
        f"{name} cannot be read as an image: {why}",
        remedy="Repair or remove it; `prunec data check RECIPE` lists every such file.",
    )


def reason(content: bytes, error: Exception) -> str:
    """Return why Pillow refuses a file, in clearer words than Pillow's for an unknown format."""
    if not content:
        return "it is empty"
    if isinstance(error, UnidentifiedImageError):
        if content.startswith(TIFF):
            return "its kind of TIFF is not supported, or it is damaged"
        return f"its format is unknown: it is not {NAMES}"
    return str(error) if isinstance(error, UnclearPixels) else first_line(error)


def _too_large(name: str, declared: str, most: int) -> DamagedData:
    return DamagedData(
        f"{name} cannot be read as an image: it declares too many pixels ({declared}); "
        f"data.max_pixels = {most} are allowed",
        remedy="Repair or remove it, or allow more: --set data.max_pixels=N. "
        "`prunec data check RECIPE` lists every such file.",
    )


def _by_torchvision(content: bytes, image: Image.Image) -> Tensor | None:
    """Return a JPEG's pixels; None for other formats, and where torchvision cannot decode it."""
    if image.format not in JPEG or _decode_jpeg is None:
        return None
    with suppress(RuntimeError):  # Pillow may decode it, or gives a better reason
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
