"""Text of a first recipe for a network and its images: complete, commented, ready to run.

The passes and budgets come from the packaged recipe of the method, so that each is described once.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import Any

from prunec.cli.starter_data import DATA, SIZELESS, Images, normalised, of_folder, resized
from prunec.errors import DataError, RecipeError
from prunec.recipe import loads, packaged_recipes, packaged_text
from prunec.recipe.network_and_data import ModelSpec
from prunec.wording import did_you_mean

MODELS = ("_resnet20", "_mbv2")
"""Suffixes of the names of the packaged recipes that serve as templates; the first is preferred."""

FINE_TUNING = 0.1
"""Learning rate for pretrained weights, as a share of the rate for random ones: the usual tenth."""

USUAL_STEPS = 1100
"""Optimizer steps of the trainings that the intervals in those recipes were chosen for."""

LEAST_APART = 4
"""Smallest interval between two mask updates, in steps: the weights must learn between them, and
some updates replace a step."""

BELOW = 0.96
"""Share of a MACs budget that gates aim at: channels are removed in blocks, so the result may lie
above the aim."""

TEMPLATE = Template("""\
# $model trained on $data by $method, exported to ONNX.
# Written by `prunec init`; every value is a start, not a result. Run it:
#   prunec train $name.toml && prunec export --onnx

name = "$name"  # the run's folder is runs/$name-001
description = $description
seed = 0  # same recipe, same seed, same CPU: same weights
device = "auto"  # auto: cuda where there is one, else cpu

[model]
name = $quoted  # a torchvision name, "timm:name" or "package.module:factory"
weights = $weights  # "IMAGENET1K_V1", or a .safetensors or state-dict file; "": random
$edit
[data]  # $what
name = "$set"
root = $root  # folder of the files
${augment}${prepare}mean = $mean  # of the training images, after scaling to 0…1
std = $std
workers = $workers  # processes that load images, at most one per core; 0: this one

[train]  # SGD, cosine to zero
epochs = $epochs
batch_size = $batch
learning_rate = $rate
weight_decay = 5e-4
warmup = 0.05  # share of the training in which the rate rises from 0
precision = "auto"  # fp32, bf16 or fp16: a few steps are measured, the fastest is taken

""")


@dataclass(frozen=True)
class Wishes:
    """Options of ``prunec init``.

    Attributes:
        method: one of :func:`methods`.
        epochs: epochs of training; None for the data set's default.
        size: height and width of the network's input; 0 for the default of network and data set.
        budget: share of the MACs (gdp, magnitude) or of the weights (other methods) to keep; None
            for the packaged recipe's.
        weights: weights to start from, as in a recipe's ``model.weights``; empty for random ones.
    """

    method: str = "gdp"
    epochs: int | None = None
    size: int = 0
    budget: float | None = None
    weights: str = ""


def methods() -> tuple[str, ...]:
    """Return the training methods that have a template among the packaged recipes, sorted."""
    return tuple(sorted(_templates()))


def _templates() -> dict[str, str]:
    """Return method → name of the packaged recipe that serves as its template."""
    names = packaged_recipes()
    return {
        name.removesuffix(ending).replace("_", "-"): name
        # Later entries win in a dict, so the preferred suffix comes last.
        for ending in reversed(MODELS)
        for name in names
        if name.endswith(ending)
    }


def starter(model: str, data: str, name: str, wishes: Wishes | None = None) -> tuple[str, str]:
    """Return the text of a recipe that trains ``model`` on ``data``, and a summary of the images.

    Args:
        model: as in a recipe: a torchvision name, ``timm:name``, ``package.module:factory``.
        data: the name of a data set, or a folder of images.
        name: the recipe's name.
        wishes: method, epochs, size, budget.

    Returns:
        The text as TOML; a sentence on the images of a folder, empty for a known data set.

    Raises:
        RecipeError: there is no such data set or method, or ``name`` is not a name for a recipe.
        DataError: the folder holds no images.
        PrunecError: there is no such network.
    """
    wishes = wishes or Wishes()
    steps = _steps(wishes)
    images, classes, seen = _images(model, data, wishes)
    if wishes.epochs is not None:
        images = replace(images, epochs=wishes.epochs)
    if wishes.weights:
        images = replace(images, rate=float(f"{FINE_TUNING * images.rate:.2g}"))
    filled = TEMPLATE.substitute(
        vars(images) | {"root": _text(images.root)},
        model=model,
        quoted=_text(model),
        weights=_text(wishes.weights),
        data=data,
        description=_text(f"{model} on {data}, by {wishes.method}"),
        method=wishes.method,
        set=data if data in DATA else "imagefolder",
        name=name,
        edit=_stem_edit(model, images.channels, classes),
        augment=_array("augment", images.augment, "training images"),
        prepare=_array("prepare", images.prepare, "test images"),
    )
    text = (
        "\n".join(map(_aligned, filled.splitlines()))
        + f"\n{_in_rhythm(steps, images)}{_aligned(images.goal)}\n"
    )
    # Parsed as `prunec train` will, so that a recipe that is written is valid.
    recipe = loads(text, f"{name}.toml")
    if wishes.weights:
        _require_loadable(recipe.model, classes)
    return text, seen


def _require_loadable(spec: ModelSpec, classes: int) -> None:
    """Check the weights on the network as the recipe edits it, before the recipe is written."""
    from prunec.models.building import build_model
    from prunec.models.weights import require_loadable

    network = build_model(spec.model_copy(update={"weights": ""}), classes, seed=0)
    require_loadable(network, spec.name, spec.weights, classes)


def recipe_name(model: str, data: str, method: str = "gdp") -> str:
    """Return a recipe's name for a network, a data set and a method, fit for a folder."""
    folder = Path(data).resolve().name if data not in DATA else data
    parts = [model.rpartition(":")[2], folder, *([] if method == "gdp" else [method])]
    short = [re.sub(r"[^A-Za-z0-9]+", "_", part).strip("_") for part in parts]
    return "_".join(filter(None, [short[0] or "model", *short[1:]]))


def _images(model: str, data: str, wishes: Wishes) -> tuple[Images, int, str]:
    """Return the data section's values, the number of classes, and a summary of a folder."""
    own = _own(model, wishes.weights)
    size = (wishes.size, wishes.size) if wishes.size else own.get("size")
    if data not in DATA and Path(data).is_dir():
        from prunec.datasets.survey import survey

        seen = survey(data)
        if len(seen.labels) < 2:
            raise DataError(
                f"{data} holds a single class, {seen.labels[0]}",
                remedy="Put the images of every class into a folder of its own, all of them in "
                f"{data}; or name the folder above.",
            )
        images = of_folder(seen, data, size)
        summary = (
            f"Read {seen.looked:,} of {seen.train:,} training images in {data}: "
            f"{len(seen.labels):,} classes; median size "
            f"{'×'.join(map(str, seen.sizes[1]))} (H×W); mean {images.mean}, std {images.std}."
        )
        return _as_trained(images, own), len(seen.labels), summary
    if data not in DATA:
        folders = [entry.name for entry in Path().iterdir() if entry.is_dir()]
        near = did_you_mean(data.rstrip("/"), (*DATA, *sorted(folders)))
        raise RecipeError(
            f"there is no data set and no folder {data!r}",
            remedy=f"{near}Name a folder of images, one folder per class; or one of: "
            f"{', '.join(DATA)}.",
        )
    images = DATA[data]
    if data in SIZELESS:
        if wishes.size:
            raise RecipeError(
                f"--size does not apply to {data}: its samples are not images with one class each",
                remedy="Leave --size out, and edit the recipe that is written.",
            )
        return images, 10, ""
    images = resized(images, size) if size else images
    return _as_trained(images, own) if images.channels == 3 else images, 10, ""


def _own(model: str, weights: str) -> dict[str, Any]:
    """Return size, mean and std of the images that timm or the weights expect; {} for others."""
    kind, _, name = model.partition(":")
    if kind == "timm":
        from prunec.models.building import timm_configuration

        return timm_configuration(name)
    if not weights:
        return {}
    from prunec.models.own_images import own_images

    own = own_images(ModelSpec(name=model, weights=weights))
    return {"size": own.crop or None, "mean": own.mean, "std": own.std} if own else {}


def _as_trained(images: Images, own: dict[str, Any]) -> Images:
    return normalised(images, own["mean"], own["std"]) if own else images


def _steps(wishes: Wishes) -> str:
    """Return the passes and budgets of a method's packaged recipe, at the wanted budget."""
    packaged = _templates()
    if wishes.method not in packaged:
        near = did_you_mean(wishes.method, methods())
        raise RecipeError(
            f"there is no template for the method {wishes.method!r}",
            remedy=f"{near}There are: {', '.join(methods())}.",
        )
    # The passes of the packaged recipe, comments included; everything above them depends on the
    # data.
    whole = packaged_text(packaged[wishes.method])
    text = whole[whole.index("[[pass]]") :]
    if wishes.weights:  # trained already: one-shot pruning needs no dense phase of its own
        text = re.sub(r"(?<=\"train-magnitude\"\n)dense = .*\n", "", text)
    if wishes.budget is None:
        return text
    steps, mark, budget = text.partition("[verify.budget]")
    steps, aimed = _set(steps, "macs_ratio", BELOW * wishes.budget)
    steps, left = _set(steps, "sparsity", 1 - wishes.budget)
    # train-dense has neither key.
    if not aimed + left:
        raise RecipeError(
            f"{wishes.method} has no budget", remedy="Leave --budget out, or name another --method."
        )
    return steps + mark + _set(budget, "macs_ratio", wishes.budget)[0]


def _set(text: str, key: str, value: float) -> tuple[str, int]:
    """Replace the number of a key in ``text``; return the text and the number of replacements."""

    def replaced(match: re.Match[str]) -> str:
        return _setting(key, f"{value:.4g}", match[1])

    return re.subn(rf"^{key} = [\d.]+ *(#.*)?$", replaced, text, flags=re.MULTILINE)


def _in_rhythm(text: str, images: Images) -> str:
    """Scale the intervals in ``text``, given in steps, down to a training shorter than usual."""
    # Whole batches only: the last, smaller one is dropped.
    steps = images.epochs * (images.train // images.batch)
    if not 0 < steps < USUAL_STEPS:
        return text

    def replaced(match: re.Match[str]) -> str:
        every = max(LEAST_APART, int(match[2]) * steps // USUAL_STEPS)
        return _setting(match[1], str(min(int(match[2]), every)), match[3])

    return re.sub(r"^(\w+_steps) = (\d+) *(#.*)?$", replaced, text, flags=re.MULTILINE)


def _setting(key: str, value: str, comment: str | None) -> str:
    """Return a line of a recipe, its comment in column 31, where the packaged recipes have it."""
    return f"{f'{key} = {value}':<29} {comment or ''}".rstrip()


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _aligned(line: str) -> str:
    setting, mark, comment = line.partition("  # ")
    return f"{setting:<29} # {comment}" if setting and mark else line


def _array(key: str, entries: tuple[str, ...], of: str) -> str:
    lines = "".join(f"    {entry},\n" for entry in entries)
    return f"{key} = [  # torchvision.transforms.v2, for {of}\n{lines}]\n" if entries else ""


def _stem_edit(model: str, channels: int, classes: int) -> str:
    """Return the lines that fit the network's first convolution to the images' channels."""
    stem = _stem(model, classes)
    if stem is None or stem[1] == channels:
        return ""
    return (
        f"edit = [  # the first convolution reads {stem[1]} channels, the images have {channels}\n"
        f"    {{ module = {json.dumps(stem[0])}, set = {{ in_channels = {channels} }} }},\n]\n"
    )


def _stem(model: str, classes: int) -> tuple[str, int] | None:
    from torch import nn

    from prunec.models.building import build_model

    network = build_model(ModelSpec(name=model), classes, seed=0)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module.in_channels
    return None
