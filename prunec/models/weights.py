"""Pretrained weights: torchvision's by name, or from a file of tensors; nothing is unpickled."""

from __future__ import annotations

import argparse
import importlib
import pickle
import warnings
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from prunec.errors import DamagedRecord, DataError
from prunec.files import near_file
from prunec.models.checkpoint_values import (
    require_no_thresholds,
    require_plain_forms,
    require_values,
)
from prunec.models.checkpoints import MARK, Checkpoint, read_checkpoint, read_masks
from prunec.models.hubs import refuse_address
from prunec.models.second_head import HELD
from prunec.tensor_files import read_tensors

SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".pth.tar", ".tar", ".ckpt", ".bin")
Content = TypeVar("Content")
COUNTER = "num_batches_tracked"  # buffer of batch norms: not used here, absent from old files


def load_weights(module: nn.Module, model: str, weights: str, classes: int) -> tuple[str, ...]:
    """Load ``weights`` into ``module``.

    Args:
        module: the network, built for ``classes`` classes.
        model: its name in the recipe.
        weights: a name in torchvision's enum for that model (``IMAGENET1K_V1``, ``DEFAULT``), or
            the path of a .safetensors, .pth or .pt file.
        classes: number of classes of the data.

    Returns:
        The keys that were not loaded: a head of another number of classes.

    Raises:
        DataError: the weights do not exist, the file has more than tensors, or shapes do not fit.
    """
    return _load(module, named_weights(module, model, weights).tensors, classes, weights)


def named_weights(module: nn.Module, model: str, weights: str) -> Checkpoint:
    """Read the weights that ``weights`` names, by the names of the network's tensors.

    Raises:
        DataError: the weights do not exist, or the file has more than tensors.
    """
    refuse_address("weights", weights)
    path, _, entry = weights.partition(MARK)
    if path.endswith(SUFFIXES):
        return _from_file(Path(path), known=module.state_dict(), entry=entry)
    return Checkpoint(_from_torchvision(model, weights), {}, ())


def require_loadable(module: nn.Module, model: str, weights: str, classes: int) -> None:
    """Check that ``weights`` fit ``module``; for torchvision's, only that their name exists.

    Nothing is downloaded. A file is loaded into ``module``. Arguments and errors are those of
    `load_weights`.
    """
    refuse_address("weights", weights)
    if weights.partition(MARK)[0].endswith(SUFFIXES):
        load_weights(module, model, weights, classes)
    else:
        _entry_of_torchvision(model, weights, "weights")


def apply_masks(module: nn.Module, file: str) -> None:
    """Set the weights to zero where the masks in a file are zero.

    Raises:
        DataError: the file cannot be read, or a mask does not fit.
    """
    parameters = dict(module.named_parameters())
    masks = _opened(Path(file), "masks", lambda content: read_masks(content, parameters))
    for name, mask in masks.items():
        wanted = parameters[name].shape
        # An axis of size 1 stands for all of that axis; which axes are missing would be a guess.
        whole = [b if a == 1 else a for a, b in zip(mask.shape, wanted, strict=False)]
        if mask.dim() != len(wanted) or whole != list(wanted):
            raise DataError(
                f"model.masks: {name} is {tuple(mask.shape)}, {tuple(wanted)} is needed",
                remedy="Save masks of the shape of their weights, or with axes of size 1 for all "
                "of an axis: mask.reshape(-1, 1, 1, 1) for the filters of a convolution.",
            )
        with torch.no_grad():
            parameters[name].masked_fill_(~mask, 0)


def load_backbone(module: nn.Module, weights: str) -> None:
    """Load the weights of a classifier into ``module.backbone``, which is a part of it.

    Names are those of the classifier, with or without ``features.``; layers after the backbone
    (``fc``, ``classifier``, later features) are ignored.

    Args:
        module: a network with a sub-module ``backbone``.
        weights: NETWORK:NAME, with a name in torchvision's enum for that classifier, or the path of
            a .safetensors, .pth or .pt file.

    Raises:
        DataError: the weights do not exist, the file has more than tensors, or it is of another
            network.
    """
    backbone = getattr(module, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise DataError(
            f"model.backbone_weights = {weights!r}, but the network has no module 'backbone'",
            remedy="Use model.weights for weights of the whole network.",
        )
    refuse_address("backbone_weights", weights)
    if weights.endswith(SUFFIXES):
        bare = {key.removeprefix("features."): 0 for key in backbone.state_dict()}
        known = {*bare, *(f"features.{key}" for key in bare)}
        given = dict(_from_file(Path(weights), "backbone_weights", known).tensors)
    else:
        network, _, name = weights.partition(":")
        given = _from_torchvision(network, name, "backbone_weights")
    named = {key.removeprefix("features."): value for key, value in given.items()}
    fresh = {key: v for key, v in backbone.state_dict().items() if not key.endswith(COUNTER)}
    missing = [key for key in fresh if key not in named]
    misfits = [
        f"{key} is {tuple(named[key].shape)}, {tuple(fresh[key].shape)} is needed"
        for key in fresh
        if key in named and named[key].shape != fresh[key].shape
    ]
    if missing or misfits:
        lacking = [f"missing {_some(missing)}"] if missing else []
        raise DataError(
            f"model.backbone_weights = {weights!r} do not fit the backbone: "
            + "; ".join([*lacking, *misfits[:5]]),
            remedy="Name the classifier that the backbone is a part of, and use no model.edit that "
            "changes shapes.",
        )
    require_values(named, fresh, f"model.backbone_weights = {weights!r}")
    backbone.load_state_dict({k: v for k, v in named.items() if k in fresh}, strict=False)


def _load(
    module: nn.Module, state: Mapping[str, Tensor], classes: int, source: str
) -> tuple[str, ...]:
    fresh = module.state_dict()
    missing = [key for key in fresh if key not in state and not key.endswith(COUNTER)]
    # An auxiliary head, used only in training, is ignored.
    unexpected = [key for key in state if key not in fresh and not key.startswith(f"{HELD}.")]
    differing = [key for key in fresh if key in state and fresh[key].shape != state[key].shape]
    head = [key for key in differing if _is_head(fresh[key], state[key], classes)]
    misfits = [
        f"{key} is {tuple(state[key].shape)}, {tuple(fresh[key].shape)} is needed"
        for key in differing
        if key not in head
    ]
    named = f"model.weights = {source!r}"
    if not missing and not misfits:
        require_no_thresholds(unexpected, state, fresh, named)
    require_plain_forms(missing, state, named)
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
            remedy="Name the network that they belong to, with the same model.options, and use no "
            "model.edit that changes shapes.",
        )
    taken = {key: value for key, value in state.items() if key not in head}
    require_values(taken, fresh, named)
    module.load_state_dict(taken, strict=False)
    return tuple(head)


def _is_head(fresh: Tensor, given: Tensor, classes: int) -> bool:
    """Return whether the tensors differ only in the number of classes, the first axis."""
    return (
        fresh.ndim == given.ndim > 0
        and fresh.shape[0] == classes
        and fresh.shape[1:] == given.shape[1:]
    )


def _entry_of_torchvision(model: str, weights: str, key: str) -> Any:
    """Return torchvision's enum entry of weights, with their URL and metadata."""
    if Path(weights).exists():
        raise DataError(
            f"model.{key}: {weights} is not a file of weights that prunec reads",
            remedy=f"Give a file that ends in {', '.join(SUFFIXES)}.",
        )
    try:
        names = torchvision.models.get_model_weights(model)
    except ValueError:
        _require_no_name_of_timms(model, weights, key)
        raise DataError(
            f"model.{key} = {weights!r}: {model!r} is not a network of torchvision",
            remedy=f"Give the path of a file that ends in {', '.join(SUFFIXES)}"
            + (", or NETWORK:NAME." if key != "weights" else "."),
        ) from None
    known = names.__members__
    if weights not in known:
        raise DataError(
            f"model.{key} = {weights!r} are unknown for {model}",
            remedy=f"Known: {', '.join(known) or 'none'}; or the path of a file that ends in "
            f"{', '.join(SUFFIXES)}.",
        )
    return known[weights]


def _from_torchvision(model: str, weights: str, key: str = "weights") -> dict[str, Tensor]:
    entry = _entry_of_torchvision(model, weights, key)
    try:
        state: dict[str, Tensor] = entry.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise DataError(
            f"{entry.url} cannot be downloaded: {error}",
            remedy=f"Download it elsewhere and put it into {folder} under its own name.",
        ) from error
    return state


def _require_no_name_of_timms(model: str, weights: str, key: str) -> None:
    """Refuse weights of a timm network by name: prunec does not download them.

    Raises:
        DataError: the network is timm's; the remedy names the URL of its weights.
    """
    kind, _, name = model.partition(":")
    if kind != "timm":
        return
    known: Any = importlib.import_module("timm.models").get_pretrained_cfg(name)
    place = ""
    if known is not None and known.hf_hub_id:
        place = f"https://huggingface.co/{known.hf_hub_id}/resolve/main/model.safetensors"
    elif known is not None and known.url:
        place = known.url
    fetch = f"Download {place}" if place else "Download its file"
    raise DataError(
        f"model.{key} = {weights!r}: timm's weights are read from a file, not by name",
        remedy=f"{fetch} and set model.{key} to its path (it must end in {', '.join(SUFFIXES)}). A "
        "file in Hugging Face's cache has a path as well: "
        "~/.cache/huggingface/hub/models--…/snapshots/…/model.safetensors.",
    )


def _from_file(
    path: Path, key: str = "weights", known: Collection[str] = (), entry: str = ""
) -> Checkpoint:
    return _opened(path, key, lambda content: read_checkpoint(content, known, entry))


def _opened(path: Path, key: str, use: Callable[[object], Content]) -> Content:
    """Return ``use`` of a file's contents; report errors with the recipe's key."""
    try:
        return use(_read(path))
    except OSError as error:
        raise DataError(
            f"model.{key}: {path} cannot be read: {error.strerror or error}",
            remedy=f"{near_file(path)}Give the path of an existing file, relative to the current "
            "folder.",
        ) from error
    except DamagedRecord as error:
        raise DataError(
            f"model.{key}: {error.message}",
            remedy="Give the path of an intact file: save module.state_dict() as .safetensors "
            "again.",
        ) from error
    except pickle.UnpicklingError as error:
        raise DataError(
            f"model.{key}: {path} has more than tensors, and is not loaded: it could run code",
            remedy="Save module.state_dict(), best as .safetensors.",
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        reason = str(error).partition(". ")[0] or "it is empty"
        if "TorchScript" in reason:  # torch's own text advises to run its code
            reason = "it is a TorchScript archive"
        raise DataError(
            f"model.{key}: {path} is damaged or of another kind: {reason}",
            remedy="Save module.state_dict(), best as .safetensors.",
        ) from error


def _read(path: Path) -> object:
    if path.suffix == ".safetensors":
        return read_tensors(path)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}
    # Scripts store their arguments beside the weights; a Namespace only holds values.
    with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
        warnings.simplefilter("ignore", UserWarning)  # sparse and quantised ones are refused later
        return torch.load(path, map_location="cpu", weights_only=True)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
