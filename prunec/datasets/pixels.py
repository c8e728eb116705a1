"""Conversion of an image in any mode of Pillow to RGB, as a viewer shows it.

Values of one byte per channel are taken as they are, of 16 bits the upper byte. For other types,
the value of white must be defined: floats have the convention of 0 for black and 1 for white.
Integers of 32 bits and floats outside this range are refused, because viewers disagree on them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

BITS, PHOTOMETRIC = 258, 262  # TIFF tags: bits per sample, and whether 0 is white or black
WHITE_IS_ZERO = 0
TWELVE = 12  # bits per sample that TIFF allows and Pillow does not scale

MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with transparency",
    "P": "palette",
    "PA": "palette with transparency",
    "RGB": "RGB",
    "RGBA": "RGB with transparency",
    "RGBX": "RGB",
    "CMYK": "CMYK",
    "YCbCr": "YCbCr",
    "LAB": "CIELAB",
    "HSV": "HSV",
}
"""Pillow's modes of at most one byte per channel → words."""
WIDE = {
    "I;16": "grey of 16 bits",
    "I;16L": "grey of 16 bits",
    "I;16B": "grey of 16 bits",
    "I;16N": "grey of 16 bits",
    "I": "grey of whole numbers",
    "F": "grey of floats",
}
"""Pillow's modes of more than one byte per channel → words."""


class UnclearPixels(Exception):
    """An image has values of undefined brightness."""


def rgb(image: Image.Image) -> Tensor:
    """Convert an image to pixels uint8 [3, H, W], without applying its orientation.

    Raises:
        UnclearPixels: the brightness of its values is undefined.
        Exception: any that Pillow raises for a damaged file.
    """
    if image.mode in MODES:
        pixels: Tensor = functional.pil_to_tensor(image.convert("RGB"))
        return pixels
    if image.mode not in WIDE:
        raise UnclearPixels(f"it has Pillow's mode {image.mode}, which is not supported")
    grey = torch.from_numpy(_grey(image))
    return grey.expand(3, *grey.shape).contiguous()


def turned(pixels: Tensor, orientation: int) -> Tensor:
    """Return pixels [3, H, W] rotated and mirrored by an EXIF orientation, 1 to 8."""
    turn = _TURNS.get(orientation)
    return pixels if turn is None else turn(pixels).contiguous()


def kind_of(image: Image.Image, *, is_turned: bool) -> str:
    """Return an image's kind in words: format, mode, and what is converted or ignored."""
    name = "JPEG" if image.format == "MPO" else str(image.format)
    words = [name, MODES.get(image.mode) or WIDE.get(image.mode) or f"mode {image.mode}"]
    if image.mode in ("P", "L", "RGB", "1") and "transparency" in image.info:
        words[1] += " with transparency"
    if getattr(image, "is_animated", False):
        words.append("the first of several")
    if is_turned:
        words.append("turned by its orientation")
    return ", ".join(words)


def _grey(image: Image.Image) -> np.ndarray:
    if image.mode == "F":
        return _of_floats(image)
    if image.mode == "I":
        return _of_whole_numbers(image)
    values = np.asarray(image).astype(np.uint16)
    bits, white_is_zero = _tiff(image)
    # The upper 8 bits.
    shown: np.ndarray = (values >> (bits - 8)).astype(np.uint8)
    return 255 - shown if white_is_zero else shown


def _of_floats(image: Image.Image) -> np.ndarray:
    values = np.asarray(image)
    _, white_is_zero = _tiff(image)
    if white_is_zero:
        raise UnclearPixels("it has floats of which 0 is white; write them with 1 for white")
    lowest, highest = float(values.min()), float(values.max())
    if not 0 <= lowest <= highest <= 1:  # so is NaN
        raise UnclearPixels(
            f"it has floats from {lowest:g} to {highest:g}; brightness is defined only from 0 "
            "(black) to 1 (white)"
        )
    shown: np.ndarray = np.rint(values * 255).astype(np.uint8)
    return shown


def _of_whole_numbers(image: Image.Image) -> np.ndarray:
    if image.format == "TIFF":
        raise UnclearPixels(
            "it has signed or 32-bit whole numbers, for which white is undefined; write 8 or 16 "
            "bits"
        )
    shown: np.ndarray = (np.asarray(image) >> 8).astype(np.uint8)  # scaled to 16 bits by Pillow
    return shown


def _tiff(image: Image.Image) -> tuple[int, bool]:
    """Return bits per sample, and whether 0 is white; Pillow ignores both for wide samples."""
    tags = getattr(image, "tag_v2", {})
    bits = TWELVE if tags.get(BITS, (16,))[0] == TWELVE else 16
    return bits, tags.get(PHOTOMETRIC) == WHITE_IS_ZERO


_TURNS: dict[int, Callable[[Tensor], Tensor]] = {
    2: lambda pixels: pixels.flip(2),
    3: lambda pixels: pixels.flip(1, 2),
    4: lambda pixels: pixels.flip(1),
    5: lambda pixels: pixels.transpose(1, 2),
    6: lambda pixels: pixels.transpose(1, 2).flip(2),
    7: lambda pixels: pixels.transpose(1, 2).flip(1, 2),
    8: lambda pixels: pixels.transpose(1, 2).flip(1),
}
"""EXIF orientation → transform to upright; 1 is upright."""
