"""Networks: seeded, edited without losing what fits, refused with the right name."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from oracles import brute_macs
from safetensors.torch import save_file
from torch import nn

from prunec.errors import DataError, RecipeError
from prunec.models.building import build_model
from prunec.models.mobilenet_v1 import mobilenet_v1
from prunec.models.resnet_cifar import BasicBlock, resnet20, resnet32, resnet56
from prunec.recipe import ModelSpec, ModuleEdit

SQUEEZE = "squeezenet1_1"


class NotAModule:
    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes


def spec(name: str = "mobilenet_v2", *edits: ModuleEdit, **more: Any) -> ModelSpec:
    return ModelSpec(name=name, edit=edits, **more)


def small(*edits: ModuleEdit, **more: Any) -> ModelSpec:
    return spec("prunec.models.resnet_cifar:resnet20", *edits, **more)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, b.state_dict()[key]) for key, x in a.state_dict().items())


def test_a_seed_gives_the_same_weights_and_disturbs_nobody() -> None:
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    first = build_model(small(), 10, seed=0)
    assert torch.equal(torch.rand(1), expected)
    assert same(first, build_model(small(), 10, seed=0))
    assert not same(first, build_model(small(), 10, seed=1))
    assert first.training


def test_options_and_classes_arrive() -> None:
    model = build_model(spec(options={"width_mult": 0.25, "dropout": 0.0}), 7, seed=0)
    assert model.classifier[1].out_features == 7
    assert model.classifier[0].p == 0
    assert model.features[1].out_channels == 8


def test_the_recipes_edit_fits_the_stem_to_grey_images() -> None:
    edit = ModuleEdit(module="features.0.0", set={"in_channels": 1, "stride": 1})
    plain = build_model(spec(), 10, seed=0)
    model = build_model(spec("mobilenet_v2", edit), 10, seed=0)
    stem = model.features[0][0]
    assert (stem.in_channels, stem.stride, stem.padding, stem.bias) == (1, (1, 1), (1, 1), None)
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    expected = math.sqrt(2 / (32 * 9))  # He's rule on the fan-out
    assert float(stem.weight.detach().std()) == pytest.approx(expected, rel=0.15)
    for (name, a), (_, b) in zip(plain.named_parameters(), model.named_parameters(), strict=True):
        assert name == "features.0.0.weight" or torch.equal(a, b)


def test_a_smaller_kernel_is_drawn_by_the_same_rule() -> None:
    edit = ModuleEdit(module="conv1", set={"kernel_size": 3, "stride": 1, "padding": 1})
    model = build_model(spec("resnet18", edit), 10, seed=0)
    expected = math.sqrt(2 / (64 * 9))
    assert model.conv1.weight.shape == (64, 3, 3, 3)
    assert float(model.conv1.weight.detach().std()) == pytest.approx(expected, rel=0.1)


def test_an_edit_that_keeps_the_shape_keeps_the_weights() -> None:
    edits = (
        ModuleEdit(module="layer2.0.conv1", set={"stride": 1}),
        ModuleEdit(module="layer1.0.bn1", set={"momentum": 0.01}),
    )
    plain, model = build_model(small(), 10, seed=0), build_model(small(*edits), 10, seed=0)
    assert same(plain, model)
    assert model.layer2[0].conv1.stride == (1, 1)
    assert model.layer1[0].bn1.momentum == 0.01


@pytest.mark.parametrize(
    ("path", "change", "attribute"),
    [
        ("features.2", {"stride": 1}, "stride"),
        ("classifier.0", {"p": 0.1}, "p"),
        ("classifier.3", {"output_size": 2}, "output_size"),
        ("features.1", {"inplace": False}, "inplace"),
    ],
)
def test_layers_without_weights_are_rebuilt(
    path: str, change: dict[str, Any], attribute: str
) -> None:
    edit = ModuleEdit(module=path, set=change)
    before = build_model(spec(SQUEEZE), 10, seed=0).get_submodule(path)
    after = build_model(spec(SQUEEZE, edit), 10, seed=0).get_submodule(path)
    assert type(after) is type(before)
    assert getattr(after, attribute) == change[attribute] != getattr(before, attribute)


def test_identity_takes_a_layers_place() -> None:
    edit = ModuleEdit(module="maxpool", identity=True)
    model = build_model(spec("resnet18", edit), 10, seed=0)
    assert isinstance(model.maxpool, nn.Identity)


@pytest.mark.parametrize(
    ("wrong", "message", "remedy"),
    [
        (spec("mobilnet_v2"), "'mobilnet_v2' is not a classifier", "Did you mean 'mobilenet_v2'?"),
        (spec("fasterrcnn_resnet50_fpn"), "is not a classifier", ""),
        (spec(options={"wide": 3}), "mobilenet_v2 refuses them", "num_classes comes from"),
        (spec(options={"num_classes": 3}), "mobilenet_v2 refuses them", "num_classes comes from"),
        (spec("no_such_package:net"), "'no_such_package' cannot be imported", "PYTHONPATH"),
        (spec("prunec.models.resnet_cifar:resnet_20"), "no function or class", "'resnet20'"),
        (spec("test_models:NotAModule"), "returned NotAModule", "the network"),
        (
            spec("resnet18", ModuleEdit(module="layer1.0.conv3", identity=True)),
            "model.edit[0].module = 'layer1.0.conv3' is not a module",
            "Did you mean 'layer1.0.conv",
        ),
        (
            spec("resnet18", ModuleEdit(module="conv1", set={"strides": 1})),
            "model.edit[0].set.strides is not an argument of Conv2d",
            "Did you mean 'stride'?",
        ),
        (
            spec("resnet18", ModuleEdit(module="layer1", set={"stride": 1})),
            "a Sequential cannot be rebuilt",
            "Name a layer inside it",
        ),
        (
            spec("resnet18", ModuleEdit(module="conv1", set={"in_channels": 0, "groups": 2})),
            "Conv2d refuses its arguments",
            "It is now: Conv2d(3, 64",
        ),
        (
            spec("resnet18", ModuleEdit(module="conv1", set={"groups": 2})),
            "Conv2d refuses its arguments",
            "It is now: Conv2d(3, 64",
        ),
        (
            spec("resnet18", ModuleEdit(module="conv1", set={"in_channels": "one"})),
            "Conv2d refuses its arguments",
            "It is now: Conv2d(3, 64",
        ),
    ],
)
def test_a_wrong_model_is_refused(wrong: ModelSpec, message: str, remedy: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build_model(wrong, 10, seed=0)
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_timm_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(RecipeError, match="timm is not installed") as caught:
        build_model(spec("timm:resnet18"), 10, seed=0)
    assert "pip install timm" in caught.value.remedy


def test_timm_networks_are_built() -> None:
    pytest.importorskip("timm", reason="timm is an extra")
    model = build_model(spec("timm:resnet10t"), 7, seed=0)
    assert model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    with pytest.raises(RecipeError, match="timm has no network 'resnet10x'"):
        build_model(spec("timm:resnet10x"), 7, seed=0)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("classes", [10, 4])
def test_weights_of_a_file(tmp_path: Path, suffix: str, classes: int) -> None:
    given = build_model(small(), 10, seed=1)
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        save_file(given.state_dict(), path)
    else:
        wrapped = {f"module.{key}": value for key, value in given.state_dict().items()}
        torch.save({"state_dict": wrapped, "epoch": 3}, path)
    fresh = build_model(small(), classes, seed=0)
    told: list[str] = []
    model = build_model(small(weights=str(path)), classes, seed=0, note=told.append)
    assert [("fc.weight, fc.bias start at random" in line) for line in told] == [True] * (
        classes == 4
    )
    for key, value in model.state_dict().items():
        source = fresh if classes == 4 and key.startswith("fc.") else given
        assert torch.equal(value, source.state_dict()[key]), key


def test_a_pickle_with_code_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (Path.touch, (tmp_path / "sprung",))  # type: ignore[return-value]

    torch.save({"weight": Trap()}, tmp_path / "w.pth")
    with pytest.raises(DataError, match="could run code"):
        build_model(small(weights=str(tmp_path / "w.pth")), 10, seed=0)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("none.pth", None, "cannot be read"),
        ("bad.pth", b"nonsense", "w"),
        ("bad.safetensors", b"nonsense", "is damaged"),
    ],
)
def test_bad_files_are_reported(
    tmp_path: Path, file: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=message):
        build_model(small(weights=str(tmp_path / file)), 10, seed=0)


def test_weights_that_do_not_fit_are_reported_by_key(tmp_path: Path) -> None:
    state = build_model(small(), 10, seed=1).state_dict()
    state["conv1.weight"] = torch.zeros(16, 1, 3, 3)
    state["spare"] = state.pop("fc.bias")
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(DataError) as caught:
        build_model(small(weights=str(tmp_path / "w.safetensors")), 10, seed=0)
    for part in (
        "missing fc.bias",
        "unknown spare",
        "conv1.weight is (16, 1, 3, 3), (16, 3, 3, 3) is needed",
    ):
        assert part in caught.value.message


def test_unknown_names_of_weights_are_reported() -> None:
    with pytest.raises(DataError, match="'IMAGENET' are unknown") as caught:
        build_model(spec(weights="IMAGENET"), 10, seed=0)
    assert "IMAGENET1K_V1, IMAGENET1K_V2" in caught.value.remedy
    with pytest.raises(DataError, match="not a network of torchvision"):
        build_model(small(weights="DEFAULT"), 10, seed=0)


def test_torchvisions_weights_load_from_the_hub_folder_or_say_where_to_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(*_: object, **__: object) -> None:
        raise OSError("offline")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(DataError, match=r"squeezenet1_1-.*\.pth cannot be downloaded") as caught:
        build_model(spec(SQUEEZE, weights="DEFAULT"), 10, seed=0)
    assert str(tmp_path / "checkpoints") in caught.value.remedy

    given = torchvision.models.squeezenet1_1(num_classes=1000)
    url = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url
    torch.save(given.state_dict(), tmp_path / "checkpoints" / url.rpartition("/")[2])
    model = build_model(spec(SQUEEZE, weights="IMAGENET1K_V1"), 10, seed=0)
    assert torch.equal(model.features[0].weight, given.features[0].weight)
    assert model.classifier[1].out_channels == 10


def test_resnets_for_cifar_have_the_papers_size() -> None:
    makers = (resnet20, resnet32, resnet56)
    sizes = [sum(p.numel() for p in make(10).parameters()) for make in makers]
    assert [round(size / 1e6, 2) for size in sizes] == [0.27, 0.46, 0.85]
    model = resnet20(10, in_channels=1)
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == 19
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_mobilenet_v1_has_the_published_weights_and_macs() -> None:
    """568,740,352 multiply–accumulates and 4,209,088 weights in 28 layers (STR's table)."""
    model = mobilenet_v1().eval()
    kernels = [p for p in model.parameters() if p.dim() > 1]
    assert (len(kernels), sum(p.numel() for p in kernels)) == (28, 4_209_088)
    assert brute_macs(model, (torch.zeros(1, 3, 224, 224),)) == 568_740_352


def test_the_shortcut_samples_and_pads() -> None:
    x = torch.rand(2, 3, 7, 6)
    y = BasicBlock(3, 8, 2).shortcut(x)
    assert y.shape == (2, 8, 4, 3)
    assert torch.equal(y[:, 2:5], x[:, :, ::2, ::2])
    assert not y[:, :2].any()
    assert not y[:, 5:].any()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm:hf-hub:timm/resnet10t.c3_in1k", "'timm:resnet10t'.*timm/resnet10t.c3_in1k/resolve"),
        ("hf_hub:timm/resnet10t.c3_in1k", "'timm:resnet10t'"),
        ("timm/resnet10t", "'timm:resnet10t'"),
        ("https://huggingface.co/timm/resnet10t.c3_in1k", "'timm:resnet10t'"),
        ("microsoft/resnet-18", "hf download microsoft/resnet-18"),
        ("hf-hub:microsoft/resnet-18@main", "hf download microsoft/resnet-18"),
        ("hub:pytorch/vision:v0.10.0", "git clone https://github.com/pytorch/vision"),
        ("https://github.com/pytorch/vision", "git clone https://github.com/pytorch/vision"),
    ],
)
def test_a_network_of_a_hub_is_told_how_it_comes_in(name: str, said: str) -> None:
    with pytest.raises(RecipeError, match="is on a hub") as error:
        build_model(ModelSpec(name=name), 10, seed=0)
    assert re.search(said, error.value.remedy)


@pytest.mark.parametrize("weights", ["https://there.org/r18.pth", "hf://org/net/model.safetensors"])
def test_weights_at_an_address_are_told_to_be_fetched(weights: str) -> None:
    with pytest.raises(DataError, match="is a URL, but weights are read from files"):
        build_model(ModelSpec(name="resnet18", weights=weights), 10, seed=0)


@pytest.mark.parametrize("name", ["nets/mine.py:build", "./mine:build"])
def test_a_file_of_ones_own_is_no_hub(name: str) -> None:
    with pytest.raises(RecipeError, match="cannot be imported"):
        build_model(ModelSpec(name=name), 10, seed=0)
