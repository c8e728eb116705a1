"""Check that every weight of a file equals the network's, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from prunec.deploy.checks.check import Check
from prunec.models.state import raw_bytes

_SHOWN = 3  # tensors named in a message
_NAME = "weights equal"


def compare_weights(
    stored: Mapping[str, np.ndarray], module: nn.Module
) -> tuple[Check, tuple[str, ...], tuple[str, ...]]:
    """Compare a file's tensors with the network's tensors of the same names.

    Returns:
        The check, the names of tensors that only the file has, and of those that only the network
        has. The latter two do not fail the check.
    """
    expected = _tensors(module)
    shared = sorted(expected.keys() & stored.keys())
    wrong = [text for name in shared if (text := _difference(name, expected[name], stored[name]))]
    constants, missing = stored.keys() - expected.keys(), expected.keys() - stored.keys()
    equal = len(shared) - len(wrong)
    check = Check(
        _NAME, len(shared), equal, None, not wrong and bool(shared or not expected), _message(wrong)
    )
    return check, tuple(sorted(constants)), tuple(sorted(missing))


def holds_tensors_of(stored: Mapping[str, np.ndarray], module: nn.Module) -> bool:
    """Return whether a file has all tensors of a network, by name and shape."""
    return all(
        name in stored and stored[name].shape == tuple(tensor.shape)
        for name, tensor in _tensors(module).items()
    )


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors used in evaluation: all but counters of training batches."""
    every = dict(module.state_dict()) | dict(module.named_buffers(remove_duplicate=False))
    return {n: t for n, t in every.items() if not n.endswith("num_batches_tracked")}


def _message(wrong: list[str]) -> str:
    more = f" … and {len(wrong) - _SHOWN} more tensors." if len(wrong) > _SHOWN else ""
    return " ".join(wrong[:_SHOWN]) + more


def _difference(name: str, expected: Tensor, theirs: np.ndarray) -> str:
    """Return how a tensor differs, in a sentence; empty if it is equal."""
    if tuple(expected.shape) != theirs.shape:
        return f"{name} has shape {list(theirs.shape)}, expected {list(expected.shape)}."
    ours = np.frombuffer(raw_bytes(expected), _bits(expected.element_size()))
    kind = str(expected.dtype).removeprefix("torch.")
    if theirs.dtype.name != kind:
        return f"{name} is {theirs.dtype.name}, expected {kind}."
    # Compared as bits: NaN equals itself, and −0 differs from 0.
    bits = np.ascontiguousarray(theirs).reshape(-1).view(ours.dtype)
    if np.array_equal(ours, bits):
        return ""
    shape = tuple(expected.shape)
    mine, other = ours.reshape(shape), bits.reshape(shape)
    return _permutation(name, mine, other) or _elements(name, expected, theirs, mine != other)


def _bits(size: int) -> np.dtype[np.unsignedinteger]:
    return np.dtype(f"u{size}")


def _permutation(name: str, ours: np.ndarray, theirs: np.ndarray) -> str:
    """Return which channels changed places, if values along an axis are otherwise equal."""
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


def _elements(name: str, expected: Tensor, actual: np.ndarray, differs: np.ndarray) -> str:
    ours = expected.detach().cpu().double().numpy()
    theirs = actual.astype(np.float64)
    with np.errstate(invalid="ignore"):
        gap = np.where(differs, np.abs(ours - theirs), 0.0)
    worst = np.unravel_index(int(np.argmax(np.nan_to_num(gap, nan=np.inf))), gap.shape)
    at = f"[{', '.join(map(str, worst))}]"
    count = int(np.count_nonzero(differs))
    return (
        f"{name} differs in {count:,} of {differs.size:,} elements, by at most {gap[worst]:.3g}: "
        f"{at} is {theirs[worst]:.6g}, expected {ours[worst]:.6g}."
    )
