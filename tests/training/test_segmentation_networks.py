"""Networks for segmentation, and recipes that ask for them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from prunec.errors import DataError, RecipeError
from prunec.models.building import build_model
from prunec.recipe import ModelSpec, loads


def test_a_backbone_starts_with_the_classifiers_weights(tmp_path: Path) -> None:
    from torchvision.models import mobilenet_v2

    torch.manual_seed(1)
    classifier = mobilenet_v2(width_mult=0.25)
    torch.save(classifier.state_dict(), tmp_path / "classifier.pth")
    spec = ModelSpec(
        name="prunec.models.deeplab_mobilenet_v2:deeplabv3_mobilenet_v2",
        options={"width_mult": 0.25, "head_channels": 8},
        backbone_weights=str(tmp_path / "classifier.pth"),
    )
    model = build_model(spec, 5, seed=0)
    given = classifier.state_dict()
    backbone = {k: v for k, v in model.state_dict().items() if k.startswith("backbone.")}
    assert len(backbone) > 100
    for name, value in backbone.items():
        assert torch.equal(value, given[name.replace("backbone.", "features.")])
    wide = spec.model_copy(update={"options": {"width_mult": 0.5, "head_channels": 8}})
    with pytest.raises(DataError, match=r"model\.backbone_weights = .* do not fit the backbone"):
        build_model(wide, 5, seed=0)
    with pytest.raises(DataError, match="no module 'backbone'"):
        build_model(ModelSpec(name="mobilenet_v2", backbone_weights="resnet50:DEFAULT"), 5, seed=0)


@pytest.mark.parametrize(
    ("name", "extra", "missing"),
    [
        ("deeplabv3_resnet50", {"weights_backbone": "DEFAULT"}, "model.backbone_weights"),
        ("lraspp_mobilenet_v3_large", {"weights": "DEFAULT"}, "model.weights"),
    ],
)
def test_weights_are_no_option(name: str, extra: dict[str, str], missing: str) -> None:
    with pytest.raises(RecipeError) as refused:
        build_model(ModelSpec(name=name, options=extra), 5, seed=0)
    assert missing in refused.value.remedy


def test_unknown_backbones_are_reported() -> None:
    spec = ModelSpec(name="lraspp_mobilenet_v3_large", backbone_weights="mobilenet_v9:DEFAULT")
    with pytest.raises(DataError, match=r"model\.backbone_weights") as refused:
        build_model(spec, 5, seed=0)
    assert "NETWORK:NAME" in refused.value.remedy


@pytest.mark.parametrize(("stride", "side"), [(8, 8), (16, 4), (32, 2)])
def test_strides_become_dilation(stride: int, side: int) -> None:
    """The output stride is what is asked for, and dilation leaves the pretrained kernels' reach."""
    from prunec.models.deeplab_mobilenet_v2 import deeplabv3_mobilenet_v2

    model: Any = deeplabv3_mobilenet_v2(4, 0.25, stride, head_channels=8).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert model.backbone(images)["out"].shape[-2:] == (side, side)
        assert model(images)["out"].shape == (1, 4, 64, 64)
    plain: Any = deeplabv3_mobilenet_v2(4, 0.25, 32, head_channels=8).eval()
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():  # every other place of the dilated network is the plain one's
        step = side // 2
        actual, expected = model.backbone(images)["out"], plain.backbone(images)["out"]
    torch.testing.assert_close(actual[..., ::step, ::step], expected, rtol=1e-4, atol=1e-5)


TEXT = """
name = "x"
model = {{ name = "x:y" }}
data = {{ name = "{data}" }}
pass = [{{ name = "train-dense" }}]
[train]
epochs = 3
{line}
"""


@pytest.mark.parametrize(
    ("data", "line", "said"),
    [
        ("voc-segmentation", "mixup = 0.2", "masks"),
        ("embedded-segmentation", "cutmix = 1.0", "masks"),
        ("voc-segmentation", "stop = { accuracy = 90.0 }", "must be train.stop.miou"),
        ("voc-segmentation", "[verify.budget]\naccuracy = 90.0", "must be verify.budget.miou"),
        ("embedded", "[verify.budget]\nmiou = 50.0", "must be verify.budget.accuracy"),
    ],
)
def test_a_recipe_asks_for_what_its_data_have(data: str, line: str, said: str) -> None:
    with pytest.raises(RecipeError) as refused:
        loads(TEXT.format(data=data, line=line))
    assert said in refused.value.message


def test_a_recipe_with_the_right_keys_is_taken() -> None:
    recipe = loads(TEXT.format(data="voc-segmentation", line="stop = { miou = 70.0 }"))
    assert recipe.train.stop.miou == 70
    assert math.isclose(recipe.train.auxiliary, 0.5)
