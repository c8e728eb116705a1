"""Construction of torchvision v2 transforms from a recipe's tables, with checked arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode, v2

from prunec.datasets.sources import Label
from prunec.errors import DataError, RecipeError
from prunec.wording import did_you_mean, shortened

_ENUMS = {"interpolation": InterpolationMode, "policy": AutoAugmentPolicy}


def build_transform(tables: Sequence[Mapping[str, Any]], key: str) -> v2.Transform:
    """Build the transforms of ``tables`` in sequence, for uint8 images [..., C, H, W].

    Args:
        tables: tables with the ``name`` of a class of torchvision.transforms.v2 and its arguments;
            interpolations and policies are given by name.
        key: key of the tables in the recipe (``data.augment``), for errors.

    Raises:
        RecipeError: an unknown class or argument, or a refused value; names the key.
    """
    built = [_build_one(table, f"{key}[{place}]") for place, table in enumerate(tables)]
    return v2.Compose(built) if built else v2.Identity()


def try_transform(
    transform: Callable[..., Any], image: Tensor, key: str, label: Label = 0
) -> Tensor:
    """Return the image of ``transform(image, label)``, for one image [C, H, W].

    Raises:
        RecipeError: it fails, or does not return one image.
    """
    remedy = f"Check the arguments of {key} against the size of the images."
    try:
        result, _ = transform(image, label)
    except (TypeError, ValueError, RuntimeError) as error:
        shape = "×".join(str(size) for size in image.shape)
        raise RecipeError(f"{key} fails on an image of {shape}: {error}", remedy=remedy) from error
    if not isinstance(result, Tensor) or result.ndim != 3:
        raise RecipeError(
            f"{key} returns {type(result).__name__} instead of an image", remedy=remedy
        )
    return result


def build_normalisation(mean: Sequence[float], std: Sequence[float], channels: int) -> v2.Transform:
    """Return the normalisation of uint8 images [..., C, H, W]: (x / 255 − ``mean``) / ``std``.

    Float inputs are not divided by 255. A single value applies to all channels.

    Raises:
        DataError: neither one value nor one per channel, or a ``std`` that is not positive.
    """
    for key, values in (("data.mean", mean), ("data.std", std)):
        if len(values) not in (1, channels):
            raise DataError(
                f"{key} has {len(values)} values, the images have {channels} channels",
                remedy=f"Give {channels} values, or one for all channels.",
            )
    if min(std) <= 0:
        raise DataError(f"data.std has the value {min(std)}", remedy="Give positive values.")
    to_float = v2.ToDtype(torch.float32, scale=True)
    return v2.Compose([to_float, _Normalise(_spread(mean, channels), _spread(std, channels))])


class _Normalise(nn.Module):
    """v2.Normalize, which waits for the device: it copies mean and std there for each batch."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        pair = (torch.tensor(values, dtype=torch.float32) for values in (mean, std))
        self.mean, self.std = (values.view(-1, 1, 1) for values in pair)

    def forward(self, images: Tensor) -> Tensor:
        """Return (x − mean)/std of float images [..., C, H, W]."""
        mean, std = (x.to(images.device, non_blocking=True) for x in (self.mean, self.std))
        return images.sub(mean).div_(std)


def _spread(values: Sequence[float], channels: int) -> list[float]:
    return list(values) * (channels // len(values))


def _build_one(table: Mapping[str, Any], key: str) -> v2.Transform:
    arguments = dict(table)
    name = arguments.pop("name", None)
    factory = _transform_class(name, key)
    _check_arguments(factory, arguments, key)
    values = {word: _enum(word, value, key) for word, value in arguments.items()}
    if "fill" in values:  # a colour for images; padding of masks is unlabelled
        values["fill"] = {"others": values["fill"], tv_tensors.Mask: 0}
    try:
        return factory(**values)
    except Exception as error:  # any exception: each class of torchvision raises its own kinds
        raise RecipeError(
            f"{key} ({name}): {shortened(str(error), 300)}",
            remedy=f"Its arguments: {_signature(factory)}.",
        ) from error


def _transform_class(name: object, key: str) -> type[v2.Transform]:
    if not isinstance(name, str):
        raise RecipeError(
            f"{key} has no name", remedy='Name a class: { name = "RandomHorizontalFlip" }.'
        )
    factory = getattr(v2, name, None)
    if inspect.isclass(factory) and issubclass(factory, v2.Transform):
        return factory
    names = [word for word in dir(v2) if inspect.isclass(getattr(v2, word))]
    raise RecipeError(
        f"{key}.name = {shortened(name)!r} is not a class of torchvision.transforms.v2",
        remedy=did_you_mean(name, names) or "See torchvision's documentation for their names.",
    )


def _check_arguments(factory: type, arguments: Mapping[str, Any], key: str) -> None:
    known = list(inspect.signature(factory).parameters)
    for word in arguments:
        if word not in known:
            raise RecipeError(
                f"{key}.{shortened(word)} is not an argument of {factory.__name__}",
                remedy=f"{did_you_mean(word, known)}Its arguments: {_signature(factory)}.",
            )


def _signature(factory: type) -> str:
    return ", ".join(inspect.signature(factory).parameters) or "none"


def _enum(word: str, value: object, key: str) -> object:
    kind = _ENUMS.get(word)
    if kind is None or not isinstance(value, str):
        return value
    try:
        return kind(value)
    except ValueError:
        names = [str(member.value) for member in kind]
        raise RecipeError(
            f"{key}.{word} = {shortened(value)!r} is unknown", remedy=f"One of {', '.join(names)}."
        ) from None
