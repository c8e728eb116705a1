"""What a file says of how it is fed: enough to do it by hand."""

from __future__ import annotations

import json
import re

import torch

from prunec.deploy.feeding import feeding
from prunec.recipe.network_and_data import DataSpec


def test_an_image_is_fed_by_what_the_file_says() -> None:
    data = DataSpec(
        prepare=({"name": "Resize", "size": 40}, {"name": "CenterCrop", "size": 32}),
        mean=(0.5, 0.4, 0.3),
        std=(0.25, 0.2, 0.1),
    )
    said = feeding((torch.zeros(2, 3, 32, 32),), data, ("cat", "dog"))
    assert said["prunec.layout"] == "N, C, H, W"
    assert json.loads(said["prunec.mean"]) == [0.5, 0.4, 0.3]
    assert json.loads(said["prunec.labels"]) == ["cat", "dog"]
    assert said["prunec.feed"] == (
        "input: float32 [batch, 3, 32, 32]. Take the image as RGB, red first. Prepare it as "
        "torchvision's transforms v2 do: Resize(size=40); CenterCrop(size=32). Scale it to 0…1, "
        "subtract 0.5, 0.4, 0.3 and divide by 0.25, 0.2, 0.1, channel by channel. The first output "
        "holds a score for each of 2 classes along axis 1; the largest is the answer, and its name "
        "stands in prunec.labels."
    )


def test_without_data_only_the_inputs_are_told() -> None:
    said = feeding((torch.zeros(2, 5), torch.zeros(2, 3, 7, dtype=torch.int64)), None, ())
    assert set(said) == {"prunec.layout", "prunec.feed"}
    assert said["prunec.feed"] == "input_0: float32 [batch, 5]. input_1: int64 [batch, 3, 7]."
    assert re.fullmatch("N, features", said["prunec.layout"])
