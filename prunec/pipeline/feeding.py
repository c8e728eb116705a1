"""How a file is fed: the size of a sample, what is done to an image before, names of the classes.

It stands in the metadata of every file that can hold some, and in the manifest for every form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from prunec.artifact import Artifact
from prunec.batches.batches import Data
from prunec.deploy.signature import FEEDING
from prunec.recipe import Recipe

_LAYOUTS = {4: "NCHW", 3: "NCL", 2: "NC"}
_SEQUENCES = ("har", "speech-commands", "speech-commands-12")


def feeding(
    recipe: Recipe, artifact: Artifact, data: Data | None, layout: str = ""
) -> dict[str, Any]:
    """Return how a file of an artifact is fed, as JSON has it.

    Args:
        recipe: says how images are prepared and normalised.
        artifact: what ships; its example has the sizes.
        data: the images, for the names of the classes; None where the recipe names none.
        layout: of the bytes that the file takes, whose normalisation is in it; empty: it takes
            numbers.
    """
    inputs = [
        {
            "shape": list(x.shape[1:]),
            "type": str(x.dtype).removeprefix("torch."),
            "layout": layout.upper() or _LAYOUTS.get(x.ndim, ""),
        }
        for x in artifact.example
    ]
    if data is None:
        text = "No data are known of it: give the numbers as the network takes them, batch first."
        return {"inputs": inputs, "how_to_feed": text}
    spec, channels = recipe.data, data.shape[0]
    found: dict[str, Any] = {
        "kind": "image" if is_image(recipe) else "sequence",
        **({"normalised_by": "the file itself"} if layout else {}),
        "mean": spread(spec.mean, channels),
        "std": spread(spec.std, channels),
        "prepare": json.loads(json.dumps(list(spec.prepare))),
    }
    text = _text(found, data.shape, data.kind.__name__.lower(), layout)
    return {"inputs": inputs, **found, "how_to_feed": text, "labels": list(data.labels)}


def is_image(recipe: Recipe) -> bool:
    """Say whether a recipe's samples are images."""
    return recipe.data.name not in _SEQUENCES


def as_metadata(found: Mapping[str, Any]) -> dict[str, str]:
    """Return how a file is fed as an entry of its metadata."""
    return {FEEDING: json.dumps(found, ensure_ascii=False, sort_keys=True)}


def spread(values: Sequence[float], channels: int) -> list[float]:
    """Return a value for each channel."""
    return [float(value) for value in values] * (channels // len(values))


def _text(found: Mapping[str, Any], shape: Sequence[int], task: str, layout: str) -> str:
    """A paragraph for whoever has the file and an image."""
    channels, height, width = shape
    mean, std = (", ".join(f"{x:g}" for x in found[key]) for key in ("mean", "std"))
    if found["kind"] == "sequence":
        first = "Take a sequence as the data set has it, float32 [features, 1, steps], standardised"
    else:
        colour = "one channel, grey" if channels == 1 else "RGB in this order"
        steps = ", then ".join(map(_step, found["prepare"])) or "at the size that it has"
        first = f"Take an image, {colour}, uint8 from 0 to 255; {steps}; divide by 255"
        first = first.removesuffix("; divide by 255") if layout else first
    answer = "a score for every class, in the order of labels"
    if task == "segmentation":
        answer = "a score for every class and pixel, classes in the order of labels"
    if layout:
        sizes = (height, width, channels) if layout == "nhwc" else (channels, height, width)
        axes = "height, width, channels" if layout == "nhwc" else "channels, height, width"
        return (
            f"{first}. One sample is uint8 {list(sizes)}: {axes}; the batch comes first. The file "
            f"itself divides by 255, subtracts the mean ({mean}) and divides by the deviation "
            f"({std}). The first output holds {answer}."
        )
    return (
        f"{first}; subtract the mean ({mean}) and divide by the deviation ({std}), channel by "
        f"channel. One sample is float32 [{channels}, {height}, {width}]: channels, height, width; "
        f"the batch comes first. The first output holds {answer}."
    )


def _step(table: Mapping[str, Any]) -> str:
    """A transform of torchvision, as it is called."""
    given = ", ".join(f"{key}={value}" for key, value in table.items() if key != "name")
    return f"{table.get('name')}({given})"
