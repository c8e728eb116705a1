"""Names of a state dict that another object around or inside the network has lengthened."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

INNER = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module")
"""What torch.compile, FSDP, checkpointing and DataParallel set around a part of a network."""

_UNCOUNTED = "num_batches_tracked"  # of batch norms: absent from old files


def without_inner(tensors: Mapping[str, Tensor], known: Collection[str]) -> dict[str, Tensor]:
    """Return the tensors by the network's names, without the words of `INNER` within them."""
    made: dict[str, Tensor] = {}
    for key, value in tensors.items():
        bare = ".".join(word for word in key.split(".") if word not in INNER)
        taken = key not in known and bare in known and bare not in tensors
        made[bare if taken else key] = value
    return made


def under_one_prefix(
    tensors: Mapping[str, Tensor], known: Collection[str]
) -> tuple[dict[str, Tensor], str, tuple[str, ...]]:
    """Find the network in a state dict of something larger: a Lightning module, a training script.

    Returns:
        The tensors below the one prefix that has every name of the network, that prefix, and the
        keys left out; all tensors, an empty prefix and nothing where there is no such one.
    """
    wanted = [name for name in known if not name.endswith(_UNCOUNTED)]
    longest = max(wanted, key=len, default="")
    ends = f".{longest}"
    prefixes = [key.removesuffix(longest) for key in tensors if longest and key.endswith(ends)]
    whole = [p for p in prefixes if all(f"{p}{name}" in tensors for name in wanted)]
    if len(whole) != 1 or any(name in tensors for name in wanted):
        return dict(tensors), "", ()
    prefix = whole[0]
    found = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
    return found, prefix, tuple(key for key in tensors if not key.startswith(prefix))
