"""Extraction of a state dict from a training script's checkpoint.

Wrappers, prefixes, masks and parametrised kernels are undone, but only where there is a single
interpretation; the loader refuses everything else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.errors import DataError
from prunec.models.checkpoint_names import names_of, under_one_prefix, without_inner

WRAPPERS = (
    "state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights", "params",
    "module",
)  # fmt: skip
"""Keys under which training scripts store the trained weights."""

AVERAGES = (
    "ema", "model_ema", "state_dict_ema", "ema_state_dict", "ema_model", "params_ema", "shadow",
    "teacher", "student",
)  # fmt: skip
"""Keys under which they store an average or another network besides."""

PREFIXES = ("module.", "_orig_mod.", "ema_model.", "model.", "net.", "network.", "ema.", "module_")
"""Prefixes that DataParallel, torch.compile, averages, Lightning and scripts put on every key."""

COUNTERS = (
    "total_ops", "total_params", "n_averaged", "__flops__", "__params__", "__macs__",
    "__batch_counter__", "parameter_quantity", "inference_memory", "MAdd", "duration", "Flops",
    "Memory", "input_shape", "output_shape",
)  # fmt: skip
"""Counters that thop, ptflops, torchstat and torch's AveragedModel leave in a state dict."""

MASKS = ("masks", "mask")
"""Keys under which they store masks."""

_AS_WEIGHTS = (
    "Save a dict of tensors, named like their weights: conv1.weight, or conv1.weight_mask."
)

MARK = "::"
"""Separator between a file and the name of one of its state dicts."""


@dataclass(frozen=True)
class Checkpoint:
    """The state dict of a checkpoint.

    Attributes:
        tensors: parameter or buffer → tensor; masked weights are zero where the mask is.
        masks: name of a weight → bool mask of its shape.
        notes: sentences on what was undone.
    """

    tensors: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    notes: tuple[str, ...]


def read_checkpoint(content: object, known: Collection[str], entry: str = "") -> Checkpoint:
    """Return the state dict in the contents of a checkpoint file.

    Args:
        content: contents of the file.
        known: names of the network's parameters and buffers, to recognise prefixes by.
        entry: key of one of several state dicts, with dots between levels; by default the trained
            one, or an average if it is the only one.

    Raises:
        DataError: there is no state dict, or none of this key.
    """
    candidates = _candidates(content)
    name = _chosen(candidates, entry)
    several = len(candidates) > 1
    notes = [f"read {name!r} of {', '.join(map(repr, candidates))}"] if several else []
    tensors = _without_counters(candidates[name], known)
    tensors, prefix = _without_prefix(tensors, known)
    tensors, around, apart = under_one_prefix(without_inner(tensors, known), known)
    prefix += around
    if prefix:
        notes.append(f"removed the prefix {prefix!r} from every key")
    if apart:
        notes.append(f"ignored {len(apart)} tensors besides the network's, such as {apart[0]}")
    tensors, computed = _computed(tensors, known)
    if computed:
        notes.append(f"computed {computed} parametrised weights")
    tensors, masks = _masked(tensors, known)
    if masks:
        notes.append(f"set weights to zero by {len(masks)} masks")
    return Checkpoint(tensors, masks, tuple(notes))


def read_masks(content: object, known: Collection[str]) -> dict[str, Tensor]:
    """Return the masks in a file, named as their weight, with ``_mask`` behind it, or as the layer.

    Raises:
        DataError: the file has no tensors, a mask belongs to no weight, or has other values than 0
            and 1.
    """
    if isinstance(content, Mapping):  # as a state dict of their own
        content = next((content[key] for key in MASKS if key in content), content)
    candidates = _candidates(content)
    if not candidates:
        raise DataError("model.masks: the file has no masks", remedy=_AS_WEIGHTS)
    tensors, _ = _without_prefix(candidates[_chosen(candidates, "")], known, _mask_target)
    masks: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        target = _mask_target(key, known)
        if target is None:
            raise DataError(
                f"model.masks: {key} does not belong to a weight of the network",
                remedy=_AS_WEIGHTS,
            )
        masks[target] = _binary(key, tensor, "model.masks")
    return masks


def _candidates(content: object, path: str = "") -> dict[str, dict[str, Tensor]]:
    """Return every state dict in nested mappings, by its path."""
    if not isinstance(content, Mapping):
        return {}
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    nested = {str(k): v for k, v in content.items() if isinstance(v, Mapping)}
    if tensors and not any(key in nested for key in (*WRAPPERS, *AVERAGES)):
        return {path: tensors} if len(tensors) == len(content) or not nested else {}
    nests: dict[str, dict[str, Tensor]] = {}
    for key, value in nested.items():
        if key in WRAPPERS or key in AVERAGES:
            nests.update(_candidates(value, f"{path}.{key}" if path else key))
    return nests


def _chosen(candidates: Mapping[str, object], entry: str) -> str:
    there = ", ".join(map(repr, candidates)) or "none"
    if entry:
        if entry in candidates:
            return entry
        raise DataError(
            f"model.weights: the file has no state dict {entry!r}",
            remedy=f"State dicts of the file: {there}.",
        )
    if not candidates:
        raise DataError(
            "model.weights: the file has no state dict",
            remedy="Save module.state_dict(), best as .safetensors.",
        )
    trained = [name for name in candidates if not set(name.split(".")) & set(AVERAGES)]
    left = trained or list(candidates)
    if len(left) > 1:
        raise DataError(
            f"model.weights: the file has several state dicts: {there}",
            remedy=f"Name one: FILE{MARK}{left[0]}.",
        )
    return left[0]


def _without_counters(tensors: dict[str, Tensor], known: Collection[str]) -> dict[str, Tensor]:
    return {
        key: value
        for key, value in tensors.items()
        if key in known or key.rpartition(".")[2] not in COUNTERS
    }


def _plain_target(key: str, known: Collection[str]) -> str | None:
    """Return the network's name for a key of a checkpoint; None where there is none."""
    return next((name for name in names_of(key) if name in known), None)


def _mask_target(key: str, known: Collection[str]) -> str | None:
    """Return the name of the weight that a mask belongs to; None where there is none."""
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
    """Remove common prefixes until a key fits the network; return the tensors and the prefix."""
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
    """Compute weights that are stored as direction and length; return them and their number."""
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
    """Return the names of length, direction and weight, if ``key`` is a length; else empty."""
    if key.endswith(".original0"):
        weight = key.removesuffix(".original0").replace("parametrizations.", "")
        return key, key[:-1] + "1", weight
    if key.endswith("_g"):
        return key, key[:-1] + "v", key.removesuffix("_g")
    return "", "", ""


def _axis(length: Tensor) -> int:
    """Return the axis along which weight_norm has one length each; -1 for a single length."""
    return next(
        (axis for axis, size in enumerate(length.shape) if size > 1), 0 if length.dim() else -1
    )


def _masked(
    tensors: dict[str, Tensor], known: Collection[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Compute the weights of torch.nn.utils.prune; return all weights, and its masks."""
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


def _binary(key: str, tensor: Tensor, source: str = "model.weights") -> Tensor:
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise DataError(
            f"{source}: the mask {key} is sparse or quantised", remedy="Save mask.to_dense() != 0."
        )
    mask = tensor != 0
    if not torch.equal(mask.to(tensor.dtype), tensor):
        raise DataError(
            f"{source}: the mask {key} has other values than 0 and 1",
            remedy="Save masks of 0 and 1, for example mask != 0.",
        )
    return mask
