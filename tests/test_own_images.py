"""Pretrained weights bring mean, deviation and size where a recipe says nothing of them."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from prunec.catalogue import self_contained
from prunec.errors import DataError
from prunec.models.weights import load_weights
from prunec.recipe import Recipe, dumps, loads

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def recipe(name: str, weights: str, **data: Any) -> Recipe:
    document = {
        "name": "tried",
        "model": {"name": name, "weights": weights},
        "data": {"name": "imagefolder", **data},
        "train": {"epochs": 3},
        "pass": ({"name": "train-magnitude", "macs_ratio": 0.5},),
    }
    return self_contained(Recipe.model_validate(document), "tried.toml")


@pytest.mark.parametrize(
    ("name", "weights", "resize", "crop"),
    [
        ("mobilenet_v2", "IMAGENET1K_V1", 256, 224),
        ("mobilenet_v2", "IMAGENET1K_V2", 232, 224),
        ("mobilenet_v2", "DEFAULT", 232, 224),
        ("inception_v3", "IMAGENET1K_V1", 342, 299),
        ("resnet18", "somewhere/resnet18-f37072fd.pth", 256, 224),
        ("timm:mobilenetv3_small_100", "any.safetensors", 256, 224),
    ],
)
def test_a_recipe_that_says_nothing_takes_those_of_its_weights(
    name: str, weights: str, resize: int, crop: int
) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    data = recipe(name, weights).data
    assert (data.mean, data.std) == (MEAN, STD)
    assert data.prepare == (
        {"name": "Resize", "size": resize}, {"name": "CenterCrop", "size": [crop, crop]},
    )  # fmt: skip
    assert data.augment == ()


def test_what_a_recipe_says_stays() -> None:
    own = {"augment": ({"name": "RandomCrop", "size": 64},), "mean": (0.1,)}
    data = recipe("mobilenet_v2", "IMAGENET1K_V1", **own).data
    assert (data.mean, data.std, data.prepare) == ((0.1,), (0.5,), ())
    only_size = recipe("mobilenet_v2", "IMAGENET1K_V1", prepare=({"name": "Resize", "size": 96},))
    assert only_size.data.mean == MEAN
    assert only_size.data.prepare == ({"name": "Resize", "size": 96},)


@pytest.mark.parametrize(
    ("name", "weights"),
    [("mobilenet_v2", ""), ("mobilenet_v2", "mine.pth"), ("package.module:net", "mine.pth")],
)
def test_weights_that_nobody_knows_say_nothing(name: str, weights: str) -> None:
    assert recipe(name, weights).data.mean == (0.5,)


def test_a_run_keeps_what_was_taken_in_its_own_text() -> None:
    taken = recipe("mobilenet_v2", "IMAGENET1K_V1")
    again = loads(dumps(taken))
    assert again == taken
    assert self_contained(again, "again.toml") == taken


def test_timms_weights_by_name_say_what_to_fetch_and_where_to_put_it() -> None:
    pytest.importorskip("timm")
    with pytest.raises(DataError, match="are read from a file") as caught:
        load_weights(nn.Linear(1, 1), "timm:mobilenetv3_small_100", "lamb_in1k", 1000)
    assert "huggingface.co/timm/mobilenetv3_small_100.lamb_in1k" in caught.value.remedy
    assert "set model.weights to its path" in caught.value.remedy
