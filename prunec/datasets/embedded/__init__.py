"""Images that come with prunec: 14,000 of Fashion-MNIST's 70,000 (MIT, Zalando SE, 2017)."""

from __future__ import annotations

import lzma
from importlib.resources import files

from safetensors.torch import load
from torch import Tensor

FILE = "fashion_mnist_subset.safetensors.xz"
LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def load_embedded() -> dict[str, Tensor]:
    """Load the subset.

    Returns:
        ``train_images`` uint8 [12000, 28, 28], ``train_labels`` uint8 [12000], and the same as
        ``test_…`` for 2,000 images; 1,200 and 200 of each class, in the original order.
    """
    return load(lzma.decompress(files(__package__).joinpath(FILE).read_bytes()))
