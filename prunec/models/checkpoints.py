"""What training scripts make of a state dict, undone: wrappers, prefixes, masks, computed kernels.

Only forms that leave no choice are undone; what is left over is for the loader to refuse.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.errors import DataError
from prunec.models.checkpoint_names import under_one_prefix, without_inner

WRAPPERS = (
    "state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights", "params",
    "module",
)  # fmt: skip
"""Names under which scripts keep the weights that were trained."""

AVERAGES = (
    "ema", "model_ema", "state_dict_ema", "ema_state_dict", "ema_model", "params_ema", "shadow",
    "teacher", "student",
)  # fmt: skip
"""Names under which they keep an average or another network beside those."""

PREFIXES = ("module.", "_orig_mod.", "ema_model.", "model.", "net.", "network.", "ema.", "module_")
"""What DataParallel, torch.compile, averages, Lightning and scripts set before every key."""

COUNTERS = (
    "total_ops", "total_params", "n_averaged", "__flops__", "__params__", "__macs__",
    "__batch_counter__", "parameter_quantity", "inference_memory", "MAdd", "duration", "Flops",
    "Memory", "input_shape", "output_shape",
)  # fmt: skip
"""What thop, ptflops, torchstat and torch's AveragedModel leave in a state dict."""

MARK = "::"
"""What stands between a file and the name of one of its state dicts."""


@dataclass(frozen=True)
class Checkpoint:
    """The state dict of a checkpoint.

    Attributes:
        tensors: parameter or buffer → tensor; masked weights are zero where the mask is.
        masks: name of a weight → bool mask of its shape.
        notes: what was undone, a sentence each.
    """

    tensors: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    notes: tuple[str, ...]


def read_checkpoint(content: object, known: Collection[str], entry: str = "") -> Checkpoint:
    """Return the state dict in what a file holds.

    Args:
        content: what the file holds.
        known: names of the network's parameters and buffers: the prefix is what they lack.
        entry: which of several state dicts, by its key, dots between levels; by default the one
            that was trained, an average only where it is alone.

    Raises:
        DataError: there is no state dict, or no such one.
    """
    found = _candidates(content)
    name = _chosen(found, entry)
    notes = [f"read {name!r} of {', '.join(map(repr, found))}"] if len(found) > 1 else []
    tensors = _without_counters(found[name], known)
    tensors, prefix = _without_prefix(tensors, known)
    tensors, around, apart = under_one_prefix(without_inner(tensors, known), known)
    prefix += around
    if prefix:
        notes.append(f"left the prefix {prefix!r} off every key")
    if apart:
        notes.append(f"left out {len(apart)} tensors beside the network, {apart[0]} among them")
    tensors, computed = _computed(tensors, known)
    if computed:
        notes.append(f"computed {computed} parametrised weights")
    tensors, masks = _masked(tensors, known)
    if masks:
        notes.append(f"set weights to zero by {len(masks)} masks")
    return Checkpoint(tensors, masks, tuple(notes))


def read_masks(content: object, known: Collection[str]) -> dict[str, Tensor]:
    """Return the masks of a file: of a weight's name, with ``_mask`` behind it, or its layer's.

    Raises:
        DataError: the file holds no tensors, a mask belongs to no weight, or holds other values
            than 0 and 1.
    """
    found = _candidates(content)
    tensors, _ = _without_prefix(found[_chosen(found, "")], known, _mask_target)
    masks: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        target = _mask_target(key, known)
        if target is None:
            raise DataError(
                f"model.masks: {key} is the mask of no weight of the network",
                remedy="Name masks like their weights: conv1.weight, or conv1.weight_mask.",
            )
        masks[target] = _binary(key, tensor)
    return masks


def _candidates(content: object, path: str = "") -> dict[str, dict[str, Tensor]]:
    """Every state dict in a nest of mappings, by its path."""
    if not isinstance(content, Mapping):
        return {}
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    nested = {str(k): v for k, v in content.items() if isinstance(v, Mapping)}
    if tensors and not any(key in nested for key in (*WRAPPERS, *AVERAGES)):
        return {path: tensors} if len(tensors) == len(content) or not nested else {}
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in nested.items():
        if key in WRAPPERS or key in AVERAGES:
            found.update(_candidates(value, f"{path}.{key}" if path else key))
    return found


def _chosen(found: Mapping[str, object], entry: str) -> str:
    there = ", ".join(map(repr, found)) or "none"
    if entry:
        if entry in found:
            return entry
        raise DataError(
            f"model.weights: the file holds no state dict {entry!r}",
            remedy=f"State dicts of the file: {there}.",
        )
    if not found:
        raise DataError(
            "model.weights: the file holds no state dict",
            remedy="Save module.state_dict(), best as .safetensors.",
        )
    trained = [name for name in found if not set(name.split(".")) & set(AVERAGES)]
    left = trained or list(found)
    if len(left) > 1:
        raise DataError(
            f"model.weights: the file holds several state dicts: {there}",
            remedy=f"Say which one: FILE{MARK}{left[0]}.",
        )
    return left[0]


def _without_counters(tensors: dict[str, Tensor], known: Collection[str]) -> dict[str, Tensor]:
    return {
        key: value
        for key, value in tensors.items()
        if key in known or key.rpartition(".")[2] not in COUNTERS
    }


def _plain_target(key: str, known: Collection[str]) -> str | None:
    """The network's name that a key of a checkpoint speaks of, if there is one."""
    base = key.replace("parametrizations.", "")
    for ending in (".original", ".original0", ".original1", "_orig", "_mask", "_g", "_v"):
        if base.removesuffix(ending) in known:
            return base.removesuffix(ending)
    return base if base in known else None


def _mask_target(key: str, known: Collection[str]) -> str | None:
    """The weight that a mask's name speaks of, if there is one."""
    for name in (key, key.removesuffix("_mask"), key.removesuffix(".mask"), f"{key}.weight"):
        if name in known:
            return name
    layer = key.removesuffix(".mask")
    return f"{layer}.weight" if f"{layer}.weight" in known else None


def _without_prefix(
    tensors: dict[str, Tensor],
    known: Collection[str],
    target: object = _plain_target,
) -> tuple[dict[str, Tensor], str]:
    """The tensors without what stands before every key, as long as fewer keys fit with it."""
    prefix = ""
    while tensors:
        words = [w for w in PREFIXES if all(key.startswith(w) for key in tensors)]
        if not words or _fitting(tensors, known, target):
            break
        prefix += words[0]
        tensors = {key.removeprefix(words[0]): value for key, value in tensors.items()}
    return tensors, prefix


def _fitting(tensors: Collection[str], known: Collection[str], target: object) -> bool:
    assert callable(target)
    return any(target(key, known) is not None for key in tensors)


def _computed(tensors: dict[str, Tensor], known: Collection[str]) -> tuple[dict[str, Tensor], int]:
    """Weights that were kept as direction and length, or behind an identity, as themselves."""
    made = dict(tensors)
    count = 0
    for key in tensors:
        length, direction, weight = _halves(key)
        if direction in tensors and weight in known:
            made[weight] = torch._weight_norm(  # what torch's weight_norm computes
                made.pop(direction), made.pop(length), _axis(tensors[length])
            )
            count += 1
    return made, count


def _halves(key: str) -> tuple[str, str, str]:
    """Names of length, direction and weight, if ``key`` is of a length; else empty."""
    if key.endswith(".original0"):
        weight = key.removesuffix(".original0").replace("parametrizations.", "")
        return key, key[:-1] + "1", weight
    if key.endswith("_g"):
        return key, key[:-1] + "v", key.removesuffix("_g")
    return "", "", ""


def _axis(length: Tensor) -> int:
    """The axis along which weight_norm keeps a length each; -1: one for all."""
    return next(
        (axis for axis, size in enumerate(length.shape) if size > 1), 0 if length.dim() else -1
    )


def _masked(
    tensors: dict[str, Tensor], known: Collection[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights that torch's pruning computes, and its masks."""
    made, masks = dict(tensors), {}
    for key in tensors:
        weight = key.removesuffix("_mask")
        if key in known or weight == key or weight not in known:
            continue
        masks[weight] = _binary(key, made.pop(key))
        given = weight if weight in made else f"{weight}_orig"
        if given in made:
            made[weight] = made.pop(given) * masks[weight]
    return made, masks


def _binary(key: str, tensor: Tensor) -> Tensor:
    mask = tensor != 0
    if not torch.equal(mask.to(tensor.dtype), tensor):
        raise DataError(
            f"model.weights: the mask {key} holds other values than 0 and 1",
            remedy="Save masks of 0 and 1: mask != 0, say.",
        )
    return mask
