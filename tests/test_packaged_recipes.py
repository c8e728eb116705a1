"""Every packaged recipe is complete: built, traced, trained for a few steps in all phases, cut.

Data are noise of the set's size (sequences in files of the set's format, cut to a few steps);
pretrained weights are left out: both would be downloads. After
so few steps the norms' statistics are wild and float32 rounds coarsely, so the rewrites run in
float64.
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import brute_macs, worst
from sampling import slow_case
from torch import Tensor
from torchvision.transforms import v2
from training.sequence_files import write_har, write_speech
from training.small_training import Recorder

from prunec.artifact import Artifact
from prunec.batches.batches import Data, MemoryData
from prunec.batches.data import load_data
from prunec.batches.joint_transforms import WithMask
from prunec.batches.transforms import build_normalisation, build_transform
from prunec.catalogue import build_passes
from prunec.contract import Pass, Rewrite, Training
from prunec.cost import Cost, LayerCost
from prunec.models.building import build_model
from prunec.models.gates import gates_of
from prunec.passes.train_gdp import TrainGdp
from prunec.recipe import Recipe, dumps, load_recipe, loads, packaged_recipes, packaged_text
from prunec.recipe.network_and_data import PER_PIXEL
from prunec.store.runs import RunFolder
from prunec.tasks.segmentation import Segmentation
from prunec.tasks.task import Classification
from prunec.training import state
from prunec.training.context import Context

RAW = {"embedded": (1, 28, 28), "cifar10": (3, 32, 32), "cifar100": (3, 32, 32),
       "imagenet": (3, 280, 300), "embedded-segmentation": (1, 48, 48)}  # fmt: skip
CLASSES = {"embedded": 10, "cifar10": 10, "cifar100": 100, "imagenet": 1000,
           "embedded-segmentation": 11}  # fmt: skip
SEQUENCES = {"har": (9, 1, 128), "speech-commands-12": (32, 1, 99)}
STEPS, BATCH = 4, 2
FEW_PIXELS = 64  # of an image of ImageNet, along each side, after the recipe's own transforms
FEW = 6  # steps of a sequence: tracing takes its time for each
GDP = ("gdp_mbv1_imagenet", "gdp_mbv2", "gdp_mbv2_imagenet", "gdp_resnet20",
       "gdp_resnet50_imagenet", "gdp_resnet56_cifar10", "gdp_segmentation", "gdp_deeplabv3_voc",
       "gdp_deeplab_mbv2_voc")  # fmt: skip
MASKS = ("str", "gmp", "dnw", "dpf", "dsr", "set", "snfs", "rigl", "granet", "acdc", "st3", "east",
         "two_of_four")  # fmt: skip
PAPERS = (
    "str_resnet50_imagenet", *(f"str_resnet50_{s}_imagenet" for s in (80, 95, 98, 99)),
    "str_mbv1_imagenet",
    "str_rank_fastgrnn_har", "str_rank_fastgrnn_speech",
    *(f"east_{net}_{data}" for net in ("resnet34", "resnet50") for data in ("cifar10", "cifar100")),
)  # fmt: skip

every = pytest.mark.parametrize("name", packaged_recipes())


def one_of_each() -> list[str]:
    """Recipes without those that differ from an earlier one in numbers alone."""
    collected: dict[object, str] = {}
    for name in packaged_recipes():
        recipe = load_recipe(name)
        passes = tuple(table["name"] for table in recipe.passes)
        data = recipe.data.name.replace("cifar100", "cifar10")
        if data == "voc-segmentation":
            continue  # test_segmentation_road.py has files for them
        collected.setdefault((recipe.model.name, data, passes), name)
    return list(collected.values())


def test_the_promised_recipes_are_there() -> None:
    small = {f"{name}_resnet20" for name in MASKS}
    others = {"dense_mbv2", "dense_resnet20", "str_rank_fastgrnn", "magnitude_mbv2"}
    assert {*GDP, *small, *others, *PAPERS} <= set(packaged_recipes())


@every
def test_a_recipe_survives_text_and_says_what_it_is(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert loads(dumps(recipe)) == recipe
    assert packaged_text(name).startswith("#")


@every
def test_a_recipes_passes_train_first_and_then_rewrite(name: str) -> None:
    passes = build_passes(load_recipe(name), name)
    kinds = [isinstance(p, Training) for p in passes]
    assert kinds == sorted(kinds, reverse=True)
    assert kinds[0]
    assert not kinds[-1]
    if name in GDP:
        names = [p.pass_name() for p in passes]
        assert names == ["train-gdp", "absorb-gates", "zero-tiny-weights", "remove-channels",
                         "compact-masks", "fold-batchnorm"]  # fmt: skip


@pytest.mark.parametrize("name", GDP)
def test_a_gdp_recipe_ships_what_its_controller_counts(name: str) -> None:
    """Blocks and budget of the training are those of the cut and of the verification."""
    recipe = load_recipe(name)
    gdp, cut = recipe.passes[0], recipe.passes[3]
    assert gdp["round_to"] == cut["round_to"]
    assert recipe.verify.budget.macs_ratio is not None
    assert gdp["macs_ratio"] <= recipe.verify.budget.macs_ratio <= 0.5
    assert gdp["dense"] + gdp["select"] < 1
    assert recipe.verify.budget.latency_ratio == 1.0


def noise(recipe: Recipe) -> MemoryData:
    """Images of the set's size, put through the recipe's own transforms and normalisation."""
    raw, classes = RAW[recipe.data.name], CLASSES[recipe.data.name]
    prepare = build_transform(recipe.data.prepare, "data.prepare")
    augment = build_transform(recipe.data.augment or recipe.data.prepare, "data.augment")
    count = STEPS * BATCH
    images = torch.randint(0, 256, (count, *raw), dtype=torch.uint8)
    shape = tuple(prepare(images[0]).shape)
    assert tuple(augment(images[0]).shape) == shape
    if recipe.data.name == "imagenet":
        augment, prepare = (v2.Compose([t, v2.CenterCrop(FEW_PIXELS)]) for t in (augment, prepare))
        shape = (shape[0], FEW_PIXELS, FEW_PIXELS)
    labels = torch.arange(count) % classes
    per_pixel = recipe.data.name in PER_PIXEL
    if per_pixel:
        labels = torch.randint(classes, (count, *raw[1:]), dtype=torch.uint8)
        augment, prepare = (
            t if isinstance(t, v2.Identity) else WithMask(t) for t in (augment, prepare)
        )
    return MemoryData(
        labels=tuple(map(str, range(classes))),
        shape=shape,  # type: ignore[arg-type]
        train_size=count,
        test_size=BATCH,
        seed=0,
        device=torch.device("cpu"),
        train_images=images,
        train_labels=labels,
        test_images=images[:BATCH],
        test_labels=labels[:BATCH],
        augment=augment,
        prepare=prepare,
        normalise=build_normalisation(recipe.data.mean, recipe.data.std, raw[0]),
        kind=Segmentation if per_pixel else Classification,
    )


def sequences(recipe: Recipe, root: Path) -> Data:
    """Files in the set's own format, read as they are, then cut to the first steps."""
    write_har(root, STEPS * BATCH, BATCH) if recipe.data.name == "har" else write_speech(root)
    actual = load_data(recipe.data.model_copy(update={"root": str(root)}), seed=0)
    assert actual.shape == SEQUENCES[recipe.data.name]
    few = ({"name": "CenterCrop", "size": [1, FEW]},)
    spec = recipe.data.model_copy(update={"root": str(root), "prepare": few, "workers": 0})
    return load_data(spec, seed=0)


def shortened(recipe: Recipe) -> Recipe:
    """One epoch of four steps of two images; the network is left as random as it starts."""
    changes = {
        "epochs": 1, "batch_size": BATCH, "warmup": 0.0,
        "precision": "fp32", "channels_last": True, "threads": 1,
    }  # fmt: skip
    train = recipe.train.model_copy(update=changes)
    return recipe.model_copy(
        update={"train": train, "model": recipe.model.model_copy(update={"weights": ""})}
    )


def in_four_steps(step: Pass) -> Pass:
    """One dense (where the recipe has any), then selecting, the last finishing."""
    if isinstance(step, TrainGdp):
        dense = 1 if step.dense else 0
        return dataclasses.replace(step, dense=dense / STEPS, select=(STEPS - 1 - dense) / STEPS)
    return step


def quick_cost(artifact: Artifact) -> Cost:
    """Stands in for the counter over the graph, whose tracing would take half of the test."""
    macs = brute_macs(artifact.module, artifact.example)
    return Cost((LayerCost("all", "all", macs, macs, 1, 1),), 1, 1)


def in_float64(artifact: Artifact) -> Artifact:
    module = copy.deepcopy(artifact.module).double()
    return dataclasses.replace(
        artifact, module=module, example=tuple(x.double() for x in artifact.example)
    )


# Others of their families are trained by the same passes by default.
LARGE = ("east_resnet34_cifar10", "east_resnet50_cifar10", "gdp_mbv1_imagenet", "gdp_mbv2_imagenet",
         "gdp_resnet56_cifar10", "gdp_resnet50_imagenet", "str_mbv1_imagenet",
         "str_resnet50_80_imagenet")  # fmt: skip
# Masks of single weights on one network: test_mask_methods.py trains all of them by default.
ALIKE = tuple(f"{name}_resnet20" for name in MASKS if name not in ("str", "rigl", "acdc", "east",
                                                                   "two_of_four"))  # fmt: skip
QUICK = ("two_of_four_resnet20",)


def marked(name: str) -> Any:
    return name if name in QUICK else slow_case(name, nightly=name in (*LARGE, *ALIKE))


@pytest.mark.parametrize("name", [marked(name) for name in one_of_each()])
def test_a_recipe_trains_in_every_phase_and_its_rewrites_are_exact(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        state, "save_checkpoint", lambda *_, **__: None
    )  # a tested matter, and large
    monkeypatch.setattr("prunec.artifact.Artifact.cost", property(quick_cost))
    recipe = shortened(load_recipe(name))
    folder = tmp_path / "data"
    data = sequences(recipe, folder) if recipe.data.name in SEQUENCES else noise(recipe)
    module = build_model(recipe.model, data.classes, seed=0).eval()
    example: Tensor = next(iter(data.test_batches(BATCH)))[0]
    assert example.shape[1:] == data.shape
    run = RunFolder(tmp_path)
    context = Context(recipe, data, torch.device("cpu"), run, Recorder(), resume=False)
    artifact = Artifact(module, (example,))
    passes = [in_four_steps(step) for step in build_passes(recipe, name)]
    trained = artifact = in_float64(passes[0](artifact, context))
    assert bool(gates_of(trained.module)) == (name in GDP)
    for step in passes[1:]:
        assert isinstance(step, Rewrite)
        artifact = step(artifact)
    assert worst(trained.module, artifact.module, (example.roll(1, 0).double(),)) < 1e-10
    steps: Any = artifact.history
    assert [step.name for step in steps] == [p.pass_name() for p in passes]
    if name in GDP:
        assert steps[-1].macs[1] < 0.8 * steps[0].macs[0]
        assert steps[-1].macs[1] == round(steps[0].details["macs_ratio"] * steps[0].macs[0])
    if not artifact.ties:  # a kernel that several blocks share keeps a norm for each
        assert not [m for m in artifact.module.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_transforms_of_the_recipes_are_torchvisions() -> None:
    for name in packaged_recipes():
        recipe = load_recipe(name)
        for entry in (*recipe.data.augment, *recipe.data.prepare):
            assert hasattr(v2, entry["name"])
