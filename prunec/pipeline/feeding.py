"""Description of a file's inputs: shapes, preparation of images, names of the classes.

It is written into the metadata of every file that has metadata, and into the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from prunec.artifact import Artifact
from prunec.batches.batches import Data
from prunec.deploy.signature import FEEDING
from prunec.recipe import Recipe

_LAYOUTS = {4: "NCHW", 3: "NCL", 2: "NC"}  # number of axes → their usual meaning in torch
_SEQUENCES = ("har", "speech-commands", "speech-commands-12")


def feeding(
    recipe: Recipe, artifact: Artifact, data: Data | None, layout: str = ""
) -> dict[str, Any]:
    """Return the description of an artifact's inputs, as values of JSON.

    Args:
        recipe: recipe with the preparation and normalisation of images.
        artifact: the artifact that ships; its example has the shapes.
        data: the images, for the names of the classes; None where the recipe names none.
        layout: ``nhwc`` or ``nchw`` where the file takes uint8 images and normalises them itself;
            empty for float inputs.
    """
    inputs = [
        {
            "shape": list(x.shape[1:]),  # without the batch, which is free
            "type": str(x.dtype).removeprefix("torch."),
            "layout": layout.upper() or _LAYOUTS.get(x.ndim, ""),
        }
        for x in artifact.example
    ]
    if data is None:
        text = "Its data are unknown: feed the values as the network takes them, batch first."
        return {"inputs": inputs, "how_to_feed": text}
    spec, channels = recipe.data, data.shape[0]
    preparation: dict[str, Any] = {
        "kind": "image" if is_image(recipe) else "sequence",
        **({"normalised_by": "the file itself"} if layout else {}),
        "mean": spread(spec.mean, channels),
        "std": spread(spec.std, channels),
        # Tuples become lists, as they will be read from the file.
        "prepare": json.loads(json.dumps(list(spec.prepare))),
    }
    text = _text(preparation, data.shape, data.kind.__name__.lower(), layout)
    return {"inputs": inputs, **preparation, "how_to_feed": text, "labels": list(data.labels)}


def is_image(recipe: Recipe) -> bool:
    """Return whether a recipe's samples are images, not sequences."""
    return recipe.data.name not in _SEQUENCES


def as_metadata(description: Mapping[str, Any]) -> dict[str, str]:
    """Return the description of inputs as an entry of a file's metadata."""
    return {FEEDING: json.dumps(description, ensure_ascii=False, sort_keys=True)}


def spread(values: Sequence[float], channels: int) -> list[float]:
    """Return one value per channel, repeating ``values`` (one value, or one per channel)."""
    return [float(value) for value in values] * (channels // len(values))


def _text(preparation: Mapping[str, Any], shape: Sequence[int], task: str, layout: str) -> str:
    """Return instructions, in prose, from an image to the file's input and from its output."""
    channels, height, width = shape
    mean, std = (", ".join(f"{x:g}" for x in preparation[key]) for key in ("mean", "std"))
    if preparation["kind"] == "sequence":
        first = "Take a sequence as the data set has it, float32 [features, 1, steps], standardised"
    else:
        colour = "one channel, grey" if channels == 1 else "RGB in this order"
        steps = ", then ".join(map(_step, preparation["prepare"])) or "at its own size"
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
    """Return a transform of torchvision as a call."""
    given = ", ".join(f"{key}={value}" for key, value in table.items() if key != "name")
    return f"{table.get('name')}({given})"
