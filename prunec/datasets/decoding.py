"""From the bytes of an image file to its pixels.

JPEG goes through torchvision's decoder, the rest through Pillow. Both use libjpeg-turbo and give
the same pixels, bit for bit; a JPEG of 500×400 takes 1.06 ms here against Pillow's 1.42 ms (one
core). torchvision will hand its decoders to another library some day: without them, and for the
rare JPEG that only Pillow reads, Pillow decodes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import torch
import torchvision
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional

from prunec.errors import DamagedData
from prunec.wording import first_line

JPEG = b"\xff\xd8\xff"  # how such a file begins, whatever its name says


def decode(content: bytes, name: str) -> Tensor:
    """Return the image that ``content`` holds, uint8 [3, H, W], grey and alpha made RGB.

    Args:
        content: a file's bytes, in any format that Pillow reads.
        name: where it lies, for the error.

    Raises:
        DamagedData: it is no image, or is damaged.
    """
    if content.startswith(JPEG) and _decode_jpeg is not None:
        try:
            return _decode_jpeg(content)
        except RuntimeError:
            pass  # Pillow has the last word, and the better reason
    try:
        return _decode_by_pillow(content)
    except Exception as error:  # Pillow raises what its formats happen to raise
        raise damaged(name, reason(content, error)) from error


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
        return "its format is unknown"
    return first_line(error)


def _decode_by_pillow(content: bytes) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on large images and odd metadata, without a file's name
        with Image.open(io.BytesIO(content)) as image:
            pixels: Tensor = functional.pil_to_tensor(image.convert("RGB"))
            return pixels


def _torchvision_decoder() -> Callable[[bytes], Tensor] | None:
    try:
        decode_jpeg = torchvision.io.decode_jpeg
        rgb = torchvision.io.ImageReadMode.RGB
        torch.ops.image.decode_jpeg  # noqa: B018  torchvision may be built without it
    except (AttributeError, RuntimeError):
        return None

    def decoded(content: bytes) -> Tensor:
        pixels: Tensor = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), rgb)
        return pixels

    return decoded


_decode_jpeg = _torchvision_decoder()
