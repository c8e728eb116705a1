"""Names of a state dict with extra words from objects around or inside the network."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

INNER = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module")
"""Words that torch.compile, FSDP, checkpointing and DataParallel insert for a wrapped module."""

ENDINGS = (".original", ".original0", ".original1", "_orig", "_mask", "_g", "_v")
"""Endings that torch's pruning and its parametrisations put on the names of weights."""

_UNCOUNTED = "num_batches_tracked"  # buffer of batch norms, absent from old files


def names_of(key: str) -> tuple[str, ...]:
    """Return the names that a tensor may belong to: its own, and those without an ending."""
    base = key.replace("parametrizations.", "")
    return (*(base.removesuffix(e) for e in ENDINGS if base.endswith(e)), base)


def without_inner(tensors: Mapping[str, Tensor], known: Collection[str]) -> dict[str, Tensor]:
    """Return the tensors by the network's names: the words of `INNER` are removed."""
    made: dict[str, Tensor] = {}
    for key, value in tensors.items():
        bare = ".".join(word for word in key.split(".") if word not in INNER)
        taken = key not in known and bare in known and bare not in tensors
        made[bare if taken else key] = value
    return made


def under_one_prefix(
    tensors: Mapping[str, Tensor], known: Collection[str]
) -> tuple[dict[str, Tensor], str, tuple[str, ...]]:
    """Find the network in the state dict of a larger object, such as a Lightning module.

    Returns:
        The tensors below the only prefix that has every name of the network, that prefix, and the
        other keys; where there is no such prefix, all tensors, an empty prefix and no keys.
    """
    wanted = [name for name in known if not name.endswith(_UNCOUNTED)]
    longest = max(wanted, key=len, default="")
    ends = f".{longest}"
    there = {name for key in tensors for name in names_of(key)}
    prefixes = {n.removesuffix(longest) for n in there if longest and n.endswith(ends)}
    whole = [p for p in prefixes if all(f"{p}{name}" in there for name in wanted)]
    if len(whole) != 1 or any(name in there for name in wanted):
        return dict(tensors), "", ()
    prefix = whole[0]
    below = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
    return below, prefix, tuple(key for key in tensors if not key.startswith(prefix))
