"""Checks of a checkpoint's tensors: dense, of a fitting type, finite."""

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
    """Check that tensors can be loaded into a network without loss.

    Args:
        given: tensors of a checkpoint.
        fresh: the network's tensors, by the same names.
        source: name of the checkpoint, for errors.

    Raises:
        DataError: a tensor is sparse, quantised, without storage, of another kind of number, or
            not finite where the network's is.
    """
    for key, tensor in given.items():
        if key in fresh:
            wrong, remedy = _flaw(tensor, fresh[key])
            if wrong:
                raise DataError(f"{source}: {key} {wrong}", remedy=remedy)


def require_no_thresholds(
    unexpected: list[str], given: Mapping[str, Tensor], known: Mapping[str, Tensor], source: str
) -> None:
    """Refuse thresholds that other implementations of STR store (Kusupati et al. 2020).

    Raises:
        DataError: an unexpected tensor beside a weight looks like its threshold.
    """
    for key in unexpected:
        layer, _, name = key.rpartition(".")
        beside = f"{layer}.weight" in known
        if beside and ("thresh" in name.lower() or given[key].numel() == 1):
            raise DataError(
                f"{source}: {key} looks like the threshold of a soft threshold reparametrisation "
                "(STR): the effective weight differs from the stored one",
                remedy=_STR,
            )


def require_plain_forms(missing: list[str], given: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that are stored as other tensors, from which prunec does not compute them.

    Raises:
        DataError: a missing weight is parametrised, or quantised together with its module.
    """
    for key in missing:
        layer, _, name = key.rpartition(".")
        within = f"{layer}.parametrizations.{name}."
        if f"{key}_orig" in given or any(other.startswith(within) for other in given):
            raise DataError(
                f"{source}: {key} is stored as a parametrisation (spectral_norm, for example), not "
                "as the weight that computes",
                remedy="Save the network after torch.nn.utils.parametrize.remove_parametrizations("
                f"layer, {name!r}), or torch.nn.utils.remove_spectral_norm(layer).",
            )
        if f"{layer}.zero_point" in given:
            raise DataError(
                f"{source}: {layer} is quantised", remedy="Save the weights before quantisation."
            )


def _flaw(given: Tensor, fresh: Tensor) -> tuple[str, str]:
    """Return what is wrong with a tensor, and the remedy; both empty where nothing is."""
    if given.is_meta:
        return "has no values: it is on the meta device", "Save the trained network."
    if given.layout != torch.strided:
        return "is sparse", "Save it dense: tensor.to_dense()."
    if given.is_quantized:
        return "is quantised", "Save the weights before quantisation, or tensor.dequantize()."
    if given.is_complex() != fresh.is_complex() or _is_coarse(given, fresh):
        remedy = f"Save it as {fresh.dtype}, as the network computes with it."
        return f"is {given.dtype}, {fresh.dtype} is needed", remedy
    if _is_not_finite(given, fresh):
        return "has values that are not finite", "Use an earlier checkpoint without them."
    return "", ""


def _is_coarse(given: Tensor, fresh: Tensor) -> bool:
    """Return whether the network needs floats, and the checkpoint has integers or 8-bit floats."""
    floating = given.is_floating_point() and given.element_size() > 1
    return fresh.is_floating_point() and not floating


def _is_not_finite(given: Tensor, fresh: Tensor) -> bool:
    if not (fresh.is_floating_point() and given.is_floating_point()):
        return False
    wrong = ~torch.isfinite(given.to(fresh.dtype))
    if given.shape == fresh.shape:
        wrong &= torch.isfinite(fresh.to(wrong.device))
    return bool(wrong.any())
