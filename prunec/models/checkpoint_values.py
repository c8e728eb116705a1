"""What the tensors of a checkpoint must be: as many numbers, of such a kind, all of them finite."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from prunec.errors import DataError

_STR = (
    "Save the weights that compute, m.weight.sign() * relu(m.weight.abs() - f(threshold)) with the "
    "f of that code (sigmoid, exp, …), as m.weight, and leave the thresholds out."
)


def require_values(given: Mapping[str, Tensor], fresh: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors that are no numbers of the network's kind.

    Args:
        given: what a checkpoint holds.
        fresh: the network's tensors, by the same names.
        source: how errors name it.

    Raises:
        DataError: one is sparse, quantised, without storage, of another kind of number, or holds
            what is not finite where the network has a finite number.
    """
    for key, tensor in given.items():
        if key in fresh:
            wrong, remedy = _flaw(tensor, fresh[key])
            if wrong:
                raise DataError(f"{source}: {key} {wrong}", remedy=remedy)


def require_no_thresholds(
    unexpected: list[str], given: Mapping[str, Tensor], known: Mapping[str, Tensor], source: str
) -> None:
    """Refuse the thresholds that other codes of soft threshold reparametrisation keep.

    Raises:
        DataError: a tensor stands beside a weight that looks like its threshold.
    """
    for key in unexpected:
        layer, _, name = key.rpartition(".")
        beside = f"{layer}.weight" in known
        if beside and ("thresh" in name.lower() or given[key].numel() == 1):
            raise DataError(
                f"{source}: {key} stands beside a weight, like the threshold of a soft threshold "
                "reparametrisation (STR): the weight that computes is another",
                remedy=_STR,
            )


def _flaw(given: Tensor, fresh: Tensor) -> tuple[str, str]:
    """What is wrong with a tensor, and what mends it; empty where nothing is."""
    if given.is_meta:
        return "has no values: it lies on the meta device", "Save the network that was trained."
    if given.layout != torch.strided:
        return "is sparse", "Save it dense: tensor.to_dense()."
    if given.is_quantized:
        return "is quantised", "Save the weights before quantisation, or tensor.dequantize()."
    if given.is_complex() != fresh.is_complex() or _is_coarse(given, fresh):
        remedy = f"Save it as {fresh.dtype}, as the network computes with it."
        return f"holds {given.dtype}, {fresh.dtype} is wanted", remedy
    if _is_not_finite(given, fresh):
        return "holds numbers that are not finite", "Take a checkpoint of before they came up."
    return "", ""


def _is_coarse(given: Tensor, fresh: Tensor) -> bool:
    """Return whether numbers of a finer kind are wanted than a checkpoint of them has."""
    floating = given.is_floating_point() and given.element_size() > 1
    return fresh.is_floating_point() and not floating


def _is_not_finite(given: Tensor, fresh: Tensor) -> bool:
    if not (fresh.is_floating_point() and given.is_floating_point()):
        return False
    wrong = ~torch.isfinite(given.to(fresh.dtype))
    if given.shape == fresh.shape:
        wrong &= torch.isfinite(fresh.to(wrong.device))
    return bool(wrong.any())
