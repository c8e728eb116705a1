"""A first recipe for a network and a data set: complete, commented, ready to run."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from string import Template

from prunec.errors import RecipeError
from prunec.recipe import loads
from prunec.wording import did_you_mean


@dataclass(frozen=True)
class Images:
    """What a recipe must say of a data set."""

    what: str
    channels: int
    mean: str
    std: str
    augment: tuple[str, ...]
    prepare: tuple[str, ...] = ()
    epochs: int = 12
    dense: float = 0.25
    select: float = 0.35
    batch: int = 128
    rate: float = 0.1
    workers: int = 0
    goal: str = "# accuracy = 90.0  # percent, top-1, on the test images"


FLIP = '{ name = "RandomHorizontalFlip" }'
PHOTOS = Images(
    what="photos, 3×224×224 after preparation",
    channels=3,
    mean="[0.485, 0.456, 0.406]",
    std="[0.229, 0.224, 0.225]",
    augment=('{ name = "RandomResizedCrop", size = 224 }', FLIP),
    prepare=('{ name = "Resize", size = 256 }', '{ name = "CenterCrop", size = 224 }'),
    epochs=100,
    dense=0.3,
    select=0.3,
    batch=256,
    workers=8,
)
CLOTHES = Images(
    what="grey images of clothes, 1×28×28, 10 classes",
    channels=1,
    mean="[0.286]",
    std="[0.353]",
    augment=('{ name = "RandomCrop", size = 28, padding = 2 }', FLIP),
)
THINGS = Images(
    what="colour images of things, 3×32×32",
    channels=3,
    mean="[0.4914, 0.4822, 0.4465]",
    std="[0.247, 0.2435, 0.2616]",
    augment=('{ name = "RandomCrop", size = 32, padding = 4 }', FLIP),
    epochs=200,
    dense=0.3,
    select=0.3,
)
MIOU = "# miou = 50.0  # percent, intersection over union, on the test images"
SCENES = Images(
    what="photos, 3×513×513 after preparation, a class for every pixel",
    channels=3,
    mean="[0.485, 0.456, 0.406]",
    std="[0.229, 0.224, 0.225]",
    augment=(
        '{ name = "ScaleJitter", target_size = [513, 513], scale_range = [0.5, 2.0] }',
        '{ name = "RandomCrop", size = 513, pad_if_needed = true, fill = [124, 116, 104] }',
        FLIP,
    ),
    prepare=('{ name = "CenterCrop", size = 513 }',),
    epochs=60,
    dense=0.1,
    select=0.4,
    batch=16,
    rate=0.01,
    workers=8,
    goal=MIOU,
)
CANVASES = Images(
    what="grey canvases with clothes, 1×48×48, a class for every pixel",
    channels=1,
    mean="[0.305]",
    std="[0.237]",
    augment=(FLIP,),
    batch=32,
    goal=MIOU,
)
SIGNALS = Images(
    what="nine signals of 128 steps as images of one row, 9×1×128, standardised",
    channels=9,
    mean="[0.0]",
    std="[1.0]",
    augment=(),
    epochs=60,
)
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

TEMPLATE = Template("""\
# $model trained on $data with gates, cut to half its MACs, exported to ONNX.
# Written by `prunec init`; every value is a start, not a result. Run it:
#   prunec train $name.toml && prunec export --onnx

name = "$name"  # the run's folder is runs/$name-001
description = "$model on $data, half the MACs, by GDP"
seed = 0  # same recipe, same seed, same CPU: same weights
device = "auto"  # auto: cuda where there is one, else cpu

[model]
name = $quoted  # a torchvision name, "timm:name" or "package.module:factory"
weights = ""  # "IMAGENET1K_V1", or a .safetensors or state-dict file; "": random
$edit
[data]  # $what
name = "$data"
root = "data"  # where the files lie, or are put
${augment}${prepare}mean = $mean  # of the training images, after scaling to 0…1
std = $std
workers = $workers  # processes that load images; 0: this one

[train]  # SGD, cosine to zero
epochs = $epochs
batch_size = $batch
learning_rate = $rate
weight_decay = 5e-4
warmup = 0.05  # share of the training in which the rate rises from 0
precision = "auto"  # fp32, bf16 or fp16: a few steps are measured, the fastest is taken

[[pass]]  # gates in front of convolutions learn which channels may go
name = "train-gdp"
dense = $dense  # share of the training before gates are chosen; 0 with pretrained weights
select = $select  # share in which gates are chosen; the rest trains what is left
macs_ratio = 0.48  # a little below the budget of [verify]
round_to = 8  # channels kept, in blocks that the runtime's kernels like

[[pass]]  # gates into the kernels behind them: the function stays as it is
name = "absorb-gates"

[[pass]]  # channels that are zero or unread go, exactly
name = "remove-channels"
round_to = 8

[[pass]]
name = "compact-masks"

[[pass]]  # batch norms into convolutions
name = "fold-batchnorm"

[verify.budget]  # what the shipped file must keep; false: not checked
macs_ratio = 0.5  # of the dense network's MACs
latency_ratio = 1.0  # of the dense network's time under onnxruntime
accuracy_drop = 5.0  # points below what the dense phase ended with
$goal
""")


def starter(model: str, data: str, name: str) -> str:
    """Return the text of a recipe that trains ``model`` on ``data``.

    Args:
        model: as in a recipe: a torchvision name, ``timm:name``, ``package.module:factory``.
        data: the name of a data set.
        name: the recipe's name.

    Raises:
        RecipeError: there is no such data set, or ``name`` is no name for a recipe.
        PrunecError: there is no such network.
    """
    if data not in DATA:
        near = did_you_mean(data, tuple(DATA))
        raise RecipeError(
            f"there is no data set {data!r}", remedy=f"{near}There are: {', '.join(DATA)}."
        )
    images = DATA[data]
    filled = TEMPLATE.substitute(
        vars(images),
        model=model,
        quoted=json.dumps(model, ensure_ascii=False),
        data=data,
        name=name,
        edit=_stem_edit(model, images.channels),
        augment=_array("augment", images.augment, "training images"),
        prepare=_array("prepare", images.prepare, "test images"),
    )
    text = "\n".join(map(_aligned, filled.splitlines())) + "\n"
    loads(text, f"{name}.toml")
    return text


def recipe_name(model: str, data: str) -> str:
    """Return a recipe's name for a network and a data set, fit for a folder."""
    short = re.sub(r"[^A-Za-z0-9]+", "_", model.rpartition(":")[2]).strip("_")
    return f"{short or 'model'}_{data.replace('-', '_')}"


def _aligned(line: str) -> str:
    setting, mark, comment = line.partition("  # ")
    return f"{setting:<29} # {comment}" if setting and mark else line


def _array(key: str, entries: tuple[str, ...], of: str) -> str:
    lines = "".join(f"    {entry},\n" for entry in entries)
    return f"{key} = [  # torchvision.transforms.v2, for {of}\n{lines}]\n" if entries else ""


def _stem_edit(model: str, channels: int) -> str:
    """Return the lines that fit the network's first convolution to the images' channels."""
    stem = _stem(model)
    if stem is None or stem[1] == channels:
        return ""
    return (
        f"edit = [  # the first convolution reads {stem[1]} channels, the images have {channels}\n"
        f"    {{ module = {json.dumps(stem[0])}, set = {{ in_channels = {channels} }} }},\n]\n"
    )


def _stem(model: str) -> tuple[str, int] | None:
    from torch import nn

    from prunec.models.building import build_model
    from prunec.recipe.schema import ModelSpec

    network = build_model(ModelSpec(name=model), 10, seed=0)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module.in_channels
    return None
