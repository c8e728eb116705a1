"""Checks that every weight of a file is the network's, bit for bit, and says where it is not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from prunec.deploy.checks.check import Check
from prunec.models.state import raw_bytes

_SHOWN = 3
_NAME = "weights equal"


def compare_weights(
    found: Mapping[str, np.ndarray], module: nn.Module
) -> tuple[Check, tuple[str, ...], tuple[str, ...]]:
    """Compare a file's tensors with the network's of the same names.

    Returns:
        The check; which tensors of the file are no tensor of the network; and which of its tensors
        the file does not hold. Neither of the two fails.
    """
    expected = _tensors(module)
    shared = sorted(expected.keys() & found.keys())
    wrong = [text for name in shared if (text := _difference(name, expected[name], found[name]))]
    constants, missing = found.keys() - expected.keys(), expected.keys() - found.keys()
    equal = len(shared) - len(wrong)
    check = Check(
        _NAME, len(shared), equal, None, not wrong and bool(shared or not expected), _message(wrong)
    )
    return check, tuple(sorted(constants)), tuple(sorted(missing))


def holds_tensors_of(found: Mapping[str, np.ndarray], module: nn.Module) -> bool:
    """Say whether a file has a tensor of the name and shape of each of a network's."""
    return all(
        name in found and found[name].shape == tuple(tensor.shape)
        for name, tensor in _tensors(module).items()
    )


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return what computes in eval mode: a counter of training batches does not."""
    every = dict(module.state_dict()) | dict(module.named_buffers(remove_duplicate=False))
    return {n: t for n, t in every.items() if not n.endswith("num_batches_tracked")}


def _message(wrong: list[str]) -> str:
    more = f" … and {len(wrong) - _SHOWN} more tensors." if len(wrong) > _SHOWN else ""
    return " ".join(wrong[:_SHOWN]) + more


def _difference(name: str, expected: Tensor, theirs: np.ndarray) -> str:
    """Return what is different in one tensor, as a sentence; empty if nothing is."""
    if tuple(expected.shape) != theirs.shape:
        return f"{name} has shape {list(theirs.shape)}, expected {list(expected.shape)}."
    ours = np.frombuffer(raw_bytes(expected), _bits(expected.element_size()))
    kind = str(expected.dtype).removeprefix("torch.")
    if theirs.dtype.name != kind:
        return f"{name} is {theirs.dtype.name}, expected {kind}."
    bits = np.ascontiguousarray(theirs).reshape(-1).view(ours.dtype)
    if np.array_equal(ours, bits):
        return ""
    shape = tuple(expected.shape)
    mine, other = ours.reshape(shape), bits.reshape(shape)
    return _permutation(name, mine, other) or _elements(name, expected, theirs, mine != other)


def _bits(size: int) -> np.dtype[np.unsignedinteger]:
    return np.dtype(f"u{size}")


def _permutation(name: str, ours: np.ndarray, theirs: np.ndarray) -> str:
    """Say which channels changed places, if the values along an axis are the same otherwise."""
    for axis in range(min(ours.ndim, 2)):
        a, b = np.moveaxis(ours, axis, 0), np.moveaxis(theirs, axis, 0)
        moved = [i for i in range(len(a)) if not np.array_equal(a[i], b[i])]
        if sorted(a[i].tobytes() for i in moved) != sorted(b[i].tobytes() for i in moved):
            continue
        numbers = _listed(moved)
        if len(moved) == 2:
            return f"channels {numbers} of {name} (axis {axis}) are swapped."
        return f"channels {numbers} of {name} (axis {axis}) are permuted."
    return ""


def _listed(numbers: list[int]) -> str:
    shown = [str(number) for number in numbers[:8]]
    if len(numbers) > len(shown):
        return f"{', '.join(shown)} …"
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def _elements(name: str, expected: Tensor, found: np.ndarray, differs: np.ndarray) -> str:
    ours = expected.detach().cpu().double().numpy()
    theirs = found.astype(np.float64)
    with np.errstate(invalid="ignore"):
        gap = np.where(differs, np.abs(ours - theirs), 0.0)
    worst = np.unravel_index(int(np.argmax(np.nan_to_num(gap, nan=np.inf))), gap.shape)
    at = f"[{', '.join(map(str, worst))}]"
    count = int(np.count_nonzero(differs))
    return (
        f"{name} differs in {count:,} of {differs.size:,} elements, by {gap[worst]:.3g} at most: "
        f"{at} is {theirs[worst]:.6g}, expected {ours[worst]:.6g}."
    )
