"""Data sections of first recipes: of the known data sets, and of a folder of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prunec.wording import some_of

if TYPE_CHECKING:
    from prunec.datasets.survey import Survey


@dataclass(frozen=True)
class Images:
    """Values of a recipe that depend on the data set.

    Attributes:
        what: a description in a few words.
        channels: channels of an image.
        mean: mean of the training images, as TOML.
        std: their standard deviation, as TOML.
        augment: transforms of training images, as TOML.
        prepare: transforms of test images, as TOML.
        epochs: epochs of training.
        batch: images per batch.
        rate: learning rate.
        workers: processes that load images.
        root: folder of the files.
        goal: the commented-out line of the accuracy budget.
        train: number of training images; 0 for as many as the method's template assumes.
    """

    what: str
    channels: int
    mean: str
    std: str
    augment: tuple[str, ...]
    prepare: tuple[str, ...] = ()
    epochs: int = 12
    batch: int = 128
    rate: float = 0.1
    workers: int = 0
    root: str = "data"
    goal: str = "# accuracy = 90.0  # percent, top-1, on the test images"
    train: int = 0


FLIP = '{ name = "RandomHorizontalFlip" }'


def cropped(size: tuple[int, int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return transforms from images of any size to ``size`` (H, W), for training and for test."""
    height, width = size
    side = height if height == width else [height, width]
    larger = math.ceil(max(size) * 8 / 7)  # ImageNet's usual test crop: 224 of 256
    return (
        (f'{{ name = "RandomResizedCrop", size = {side} }}', FLIP),
        (f'{{ name = "Resize", size = {larger} }}', f'{{ name = "CenterCrop", size = {side} }}'),
    )


def shifted(size: tuple[int, int]) -> tuple[str, ...]:
    """Return transforms of training images that all have ``size``: random shifts by an eighth.

    An eighth is the usual padding of CIFAR-10: 4 pixels for 32.
    """
    # An eighth is 4 of CIFAR's 32 pixels, He et al. 2016 (arXiv:1512.03385).
    padding = max(1, min(size) // 8)
    crop = f'{{ name = "RandomCrop", size = {list(size)}, padding = {padding} }}'
    return (crop, FLIP)


def _array_of(numbers: Sequence[float]) -> str:
    return f"[{', '.join(f'{number:g}' for number in numbers)}]"


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's training images."""
# Goyal et al. 2017 (arXiv:1706.02677): 90 epochs, batch 256, rate 0.1; 100 leave time to prune.
PHOTOS = Images(
    what="photos, 3×224×224 after preparation",
    channels=3,
    mean=_array_of(IMAGENET[0]),
    std=_array_of(IMAGENET[1]),
    augment=cropped((224, 224))[0],
    prepare=cropped((224, 224))[1],
    epochs=100,
    batch=256,
    workers=8,
)
# Mean and deviation of Fashion-MNIST's 60,000 training images.
CLOTHES = Images(
    what="grey images of clothes, 1×28×28, 10 classes",
    channels=1,
    mean="[0.286]",
    std="[0.353]",
    augment=('{ name = "RandomCrop", size = 28, padding = 2 }', FLIP),
)
# Mean and deviation of CIFAR-10's training images; crop and flip after He et al. 2016.
THINGS = Images(
    what="colour images of things, 3×32×32",
    channels=3,
    mean="[0.4914, 0.4822, 0.4465]",
    std="[0.247, 0.2435, 0.2616]",
    augment=('{ name = "RandomCrop", size = 32, padding = 4 }', FLIP),
    epochs=200,
)
MIOU = "# miou = 50.0  # percent, intersection over union, on the test images"
# DeepLabV3 (Chen et al. 2017, arXiv:1706.05587): crops of 513 = 32·16 + 1, scales 0.5 to 2, batch
# 16. The fill is ImageNet's mean colour, 255 times 0.485, 0.456, 0.406.
SCENES = Images(
    what="photos, 3×513×513 after preparation, a class for every pixel",
    channels=3,
    mean=_array_of(IMAGENET[0]),
    std=_array_of(IMAGENET[1]),
    augment=(
        '{ name = "ScaleJitter", target_size = [513, 513], scale_range = [0.5, 2.0] }',
        '{ name = "RandomCrop", size = 513, pad_if_needed = true, fill = [124, 116, 104] }',
        FLIP,
    ),
    prepare=('{ name = "CenterCrop", size = 513 }',),
    epochs=60,
    batch=16,
    rate=0.01,
    workers=8,
    goal=MIOU,
)
# Flips only: a crop of a 48×48 canvas may hold no garment.
CANVASES = Images(
    what="grey canvases with clothes, 1×48×48, a class for every pixel",
    channels=1,
    mean="[0.305]",
    std="[0.237]",
    augment=(FLIP,),
    batch=32,
    goal=MIOU,
)
# No augmentation: a mirrored or shifted signal may be another activity.
SIGNALS = Images(
    what="nine signals of 128 steps as images of one row, 9×1×128, standardised",
    channels=9,
    mean="[0.0]",
    std="[1.0]",
    augment=(),
    epochs=60,
)
# Four workers: features are computed from sound as it is read.
SPEECH = Images(
    what="log-mel features of a second as images of one row, 32×1×99, standardised",
    channels=32,
    mean="[0.0]",
    std="[1.0]",
    augment=(),
    epochs=60,
    workers=4,
)
DATA = {
    "embedded": CLOTHES,
    "fashion-mnist": CLOTHES,
    "cifar10": THINGS,
    "cifar100": THINGS,
    "imagenet": PHOTOS,
    "imagefolder": PHOTOS,
    "webdataset": PHOTOS,
    "har": SIGNALS,
    "speech-commands": SPEECH,
    "speech-commands-12": SPEECH,
    "voc-segmentation": SCENES,
    "embedded-segmentation": CANVASES,
}


SIZELESS = frozenset(
    {"har", "speech-commands", "speech-commands-12", "voc-segmentation", "embedded-segmentation"}
)
"""Data sets of sequences or with one class per pixel, to which ``--size`` does not apply."""


def of_folder(seen: Survey, root: str, size: tuple[int, int] | None) -> Images:
    """Return the values of a recipe for a folder of images.

    Args:
        seen: the survey of the folder.
        root: path of the folder.
        size: (H, W) of the network's input; None to choose it by the images.
    """
    goal = size or _suitable(seen)
    same = seen.same and goal == seen.sizes[0]
    augment, prepare = (shifted(goal), ()) if same else cropped(goal)
    batch = _batch(seen.train)
    shape = "×".join(map(str, goal))
    classes = f"{len(seen.labels)} classes: {some_of(seen.labels)}"
    return Images(
        what=f"{seen.train:,} + {seen.test:,} images, 3×{shape} to the network, {classes}",
        channels=3,
        mean=_array_of(seen.mean),
        std=_array_of(seen.std),
        augment=augment,
        prepare=prepare,
        epochs=30,  # enough for a first result in an evening; the data decide the rest
        batch=batch,
        # 0.1 at a batch of 128 is the CIFAR setting of He et al. 2016 (arXiv:1512.03385);
        # proportional to the batch after Goyal et al. 2017 (arXiv:1706.02677).
        rate=float(f"{0.1 * batch / 128:.2g}"),
        workers=min(4, seen.train // 500),  # a few hundred images decode faster than workers start
        root=root,
        train=seen.train,
    )


def resized(images: Images, size: tuple[int, int]) -> Images:
    """Return the values for a known data set whose images are resized to ``size`` (H, W)."""
    augment, prepare = cropped(size)
    what = f"{images.what}; at {size[0]}×{size[1]}"
    return replace(images, what=what, augment=augment, prepare=prepare)


def normalised(images: Images, mean: Sequence[float], std: Sequence[float]) -> Images:
    """Return the same values with the mean and std that a network was trained with."""
    return replace(images, mean=_array_of(mean), std=_array_of(std))


def _suitable(seen: Survey) -> tuple[int, int]:
    """Choose (H, W): the images' own size if all share one up to 224, else a usual square."""
    middle = seen.sizes[1]
    if seen.same and max(middle) <= USUAL_SIDE:
        return middle
    side = min(middle)
    # A multiple of 32, by which most networks divide the side in five halvings.
    side = min(USUAL_SIDE, side - side % 32 if side >= 32 else side)
    return side, side


def _batch(images: int) -> int:
    """Choose a batch size: the largest power of two from 8 to 128 with ten batches per epoch."""
    batch = 128
    while batch > 8 and images < 10 * batch:
        batch //= 2
    return batch


USUAL_SIDE = 224
"""Side of the images of ImageNet, which most networks are designed for."""
