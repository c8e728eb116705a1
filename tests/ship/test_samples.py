"""Right answers by class, and samples answered otherwise, as pictures."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from prunec.deploy.checks.samples import MOST, Flip, Tally, pictured


def test_classes_and_flips_are_counted_over_batches() -> None:
    tally = Tally(3)
    generator = torch.Generator().manual_seed(0)
    labels, ours, theirs = torch.randint(0, 3, (3, 60), generator=generator)
    images = torch.arange(60.0).reshape(60, 1, 1, 1)
    for part in range(0, 60, 25):
        batch = slice(part, part + 25)
        tally.add(images[batch], labels[batch], ours[batch], theirs[batch])
    for place, counts in enumerate(tally.classes):
        mine = labels == place
        right = [int((answers[mine] == place).sum()) for answers in (ours, theirs)]
        assert counts == (int(mine.sum()), *right)
    other = [i for i in range(60) if ours[i] != theirs[i]][:MOST]
    assert [flip.index for flip in tally.flips] == other
    assert [float(flip.image) for flip in tally.flips] == other  # type: ignore[arg-type]
    assert (tally.flips[0].network, tally.flips[0].file) == (ours[other[0]], theirs[other[0]])


def test_labels_of_pixels_and_none_at_all_count_nothing() -> None:
    tally = Tally(2)
    tally.add(torch.zeros(1, 1, 2, 2), *torch.zeros(3, 1, 2, 2, dtype=torch.int64))
    assert tally.classes == ()
    assert tally.flips == ()


def test_an_answer_of_no_class_is_a_flip() -> None:
    tally = Tally(2)
    tally.add(torch.zeros(1, 3, 2, 2), *map(torch.tensor, ([1], [1], [2])))
    assert tally.classes[1] == (1, 1, 0)
    assert tally.flips[0].file == 2


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_the_image_before_it_was_normalised(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (channels, 7, 5), np.uint8)
    mean, std = [0.3] * channels, [0.2] * channels
    image = (torch.tensor(pixels) / 255 - 0.3) / 0.2
    (flip,) = pictured([Flip(0, 0, 0, 1, image)], mean, std)
    made = np.array(Image.open(io.BytesIO(base64.b64decode(flip.png))))
    assert np.array_equal(made, pixels[0] if channels == 1 else pixels.transpose(1, 2, 0))
    assert flip.image is None


def test_what_is_no_image_has_no_picture_and_a_large_one_is_small() -> None:
    flips = [Flip(0, 0, 0, 1, torch.zeros(9, 1, 128)), Flip(0, 0, 0, 1, torch.zeros(3))]
    assert [flip.png for flip in pictured(flips, [0.0] * 9, [1.0] * 9)] == ["", ""]
    (large,) = pictured([Flip(0, 0, 0, 1, torch.rand(3, 400, 300))], [0.5] * 3, [0.5] * 3)
    assert max(Image.open(io.BytesIO(base64.b64decode(large.png))).size) == 96
