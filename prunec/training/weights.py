"""Pretrained weights: torchvision's by name, or a file that holds tensors and no code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from prunec.errors import DataError

SUFFIXES = (".safetensors", ".pth", ".pt")


def load_weights(module: nn.Module, model: str, weights: str, classes: int) -> tuple[str, ...]:
    """Load ``weights`` into ``module``; return the keys left as they were: another class count's.

    Args:
        module: the network, made for ``classes`` classes.
        model: its name in the recipe.
        weights: a name of torchvision's enum for that model (``IMAGENET1K_V1``, ``DEFAULT``), or
            the path of a .safetensors, .pth or .pt file.
        classes: number of classes of the data.

    Raises:
        DataError: nothing is found, the file holds more than tensors, or shapes do not fit.
    """
    if weights.endswith(SUFFIXES):
        state = _from_file(Path(weights))
    else:
        state = _from_torchvision(model, weights)
    return _load(module, state, classes, weights)


def _load(
    module: nn.Module, state: Mapping[str, Tensor], classes: int, source: str
) -> tuple[str, ...]:
    fresh = module.state_dict()
    missing = [key for key in fresh if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in fresh]
    differing = [key for key in fresh if key in state and fresh[key].shape != state[key].shape]
    head = [key for key in differing if _is_head(fresh[key], state[key], classes)]
    misfits = [
        f"{key} is {tuple(state[key].shape)}, {tuple(fresh[key].shape)} is wanted"
        for key in differing
        if key not in head
    ]
    if missing or unexpected or misfits:
        raise DataError(
            f"model.weights = {source!r} do not fit the network: "
            + "; ".join(
                [
                    *([f"missing {_some(missing)}"] if missing else []),
                    *([f"unknown {_some(unexpected)}"] if unexpected else []),
                    *misfits[:5],
                ]
            ),
            remedy="Name the network that they belong to, with the same model.options and no "
            "model.edit that changes shapes.",
        )
    module.load_state_dict({k: v for k, v in state.items() if k not in head}, strict=False)
    return tuple(head)


def _is_head(fresh: Tensor, given: Tensor, classes: int) -> bool:
    """Say whether the tensors differ in the number of classes only."""
    return (
        fresh.ndim == given.ndim > 0
        and fresh.shape[0] == classes
        and fresh.shape[1:] == given.shape[1:]
    )


def _from_torchvision(model: str, weights: str) -> dict[str, Tensor]:
    try:
        names = torchvision.models.get_model_weights(model)
    except ValueError:
        raise DataError(
            f"model.weights = {weights!r}: {model!r} is no network of torchvision",
            remedy=f"Give the path of a file that ends in {', '.join(SUFFIXES)}.",
        ) from None
    known = names.__members__
    if weights not in known:
        raise DataError(
            f"model.weights = {weights!r} are unknown for {model}",
            remedy=f"Known: {', '.join(known) or 'none'}; or the path of a file that ends in "
            f"{', '.join(SUFFIXES)}.",
        )
    entry: Any = known[weights]
    try:
        state: dict[str, Tensor] = entry.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise DataError(
            f"{entry.url} could not be fetched: {error}",
            remedy=f"Fetch it elsewhere and put it into {folder} under its own name.",
        ) from error
    return state


def _from_file(path: Path) -> dict[str, Tensor]:
    try:
        return _tensors(_read(path), path)
    except OSError as error:
        raise DataError(
            f"model.weights: {path} cannot be read: {error.strerror or error}",
            remedy="Give the path of a file that is there, from the folder you are in.",
        ) from error
    except pickle.UnpicklingError as error:
        raise DataError(
            f"model.weights: {path} holds more than tensors and is not loaded, for it could run "
            "code",
            remedy="Save module.state_dict(), best as .safetensors.",
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise DataError(
            f"model.weights: {path} is damaged or of another kind: {error}",
            remedy="Save module.state_dict(), best as .safetensors.",
        ) from error


def _read(path: Path) -> object:
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _tensors(content: object, path: Path) -> dict[str, Tensor]:
    """Return the state dict in ``content``, which training scripts like to wrap."""
    if isinstance(content, Mapping):
        for wrapper in ("state_dict", "model"):
            if isinstance(content.get(wrapper), Mapping):
                return _tensors(content[wrapper], path)
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return {str(key).removeprefix("module."): value for key, value in content.items()}
    raise DataError(
        f"model.weights: {path} holds no state dict but {type(content).__name__}",
        remedy="Save module.state_dict(), best as .safetensors.",
    )


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
