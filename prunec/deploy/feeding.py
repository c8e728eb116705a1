"""How to feed a file: what it takes, how an image becomes that, what its answers mean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from prunec.deploy.signature import input_names
from prunec.recipe.network_and_data import DataSpec

LAYOUTS = {2: "N, features", 3: "N, C, T", 4: "N, C, H, W", 5: "N, C, D, H, W"}


def feeding(
    example: Sequence[Tensor], data: DataSpec | None, labels: Sequence[str]
) -> dict[str, str]:
    """Return what a file says of how it is fed: layout, mean, std, labels, and a text of it all.

    Args:
        example: inputs of the network, batch first.
        data: how images are prepared; None where there are none.
        labels: names of the classes; empty where they are not known.
    """
    first = example[0]
    said = {"prunec.layout": LAYOUTS.get(first.dim(), f"N and {first.dim() - 1} more axes")}
    if data:
        said |= {"prunec.mean": json.dumps(data.mean), "prunec.std": json.dumps(data.std)}
    if labels:
        said["prunec.labels"] = json.dumps(list(labels), ensure_ascii=False)
    said["prunec.feed"] = " ".join(_sentences(example, data, labels))
    return said


def _sentences(
    example: Sequence[Tensor], data: DataSpec | None, labels: Sequence[str]
) -> list[str]:
    names = input_names(len(example))
    said = [f"{name}: {_kind(x)} [{_sizes(x)}]." for name, x in zip(names, example, strict=True)]
    if data:
        said += _images(example[0], data)
    if labels:
        said.append(
            f"The first output holds a score for each of {len(labels)} classes along axis 1; the "
            "largest is the answer, and its name stands in prunec.labels."
        )
    return said


def _images(first: Tensor, data: DataSpec) -> list[str]:
    channels = first.shape[1] if first.dim() == 4 else 0
    colours = {1: "Take the image in grey.", 3: "Take the image as RGB, red first."}
    said = [colours[channels]] if channels in colours else []
    if data.prepare:
        steps = "; ".join(_step(dict(table)) for table in data.prepare)
        said.append(f"Prepare it as torchvision's transforms v2 do: {steps}.")
    return [
        *said,
        f"Scale it to 0…1, subtract {_numbers(data.mean)} and divide by {_numbers(data.std)}"
        f"{', channel by channel' if len(data.mean) > 1 else ''}.",
    ]


def _step(table: dict[str, Any]) -> str:
    name = table.pop("name")
    return f"{name}({', '.join(f'{key}={value}' for key, value in table.items())})"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _kind(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _sizes(x: Tensor) -> str:
    return ", ".join(["batch", *map(str, x.shape[1:])])
