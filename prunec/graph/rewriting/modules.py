"""Graph calls as torch modules under the original module paths.

Convolutions, linear maps, batch norms, recurrent layers and dropout become modules again, so that
the compact network prints, trains and switches modes like the original; all other calls stay
functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunec.graph.capture.node import Node, per_axis

_CONVOLUTIONS: dict[str, type[nn.Module]] = {
    "conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d,
    "conv_transpose1d": nn.ConvTranspose1d, "conv_transpose2d": nn.ConvTranspose2d,
    "conv_transpose3d": nn.ConvTranspose3d,
}  # fmt: skip
# Rank of the input → class; BatchNorm1d takes (N, C) and (N, C, L).
_NORMS: dict[int, type[nn.Module]] = {
    2: nn.BatchNorm1d,
    3: nn.BatchNorm1d,
    4: nn.BatchNorm2d,
    5: nn.BatchNorm3d,
}
_RECURRENT: dict[str, type[nn.Module]] = {
    "lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN, "rnn_relu": nn.RNN,
}  # fmt: skip
_DROPOUTS: dict[str, type[nn.Module]] = {"dropout": nn.Dropout, "feature_dropout": nn.Dropout2d}


def owner_of(*names: tuple[str | None, str]) -> str | None:
    """Return the module path that holds all the tensors under the expected last names, or None."""
    paths = {name.rpartition(".")[0] for name, _ in names if name is not None}
    last = all(name is None or name.rpartition(".")[2] == wanted for name, wanted in names)
    path = paths.pop() if len(paths) == 1 and last else ""
    return path or None


def is_usual(names: Mapping[str, str | None]) -> bool:
    """Return whether a module can hold exactly these tensors: γ and β of a norm come in pairs."""
    if "running_mean" not in names:
        return True
    return (names["weight"] is None) == (names["bias"] is None)


def layer(
    node: Node, tensors: Mapping[str, Tensor | None], changes: Mapping[str, Any]
) -> nn.Module:
    """Return a module for a call that owns tensors: a convolution, a linear map or a batch norm.

    Args:
        node: the call.
        tensors: cut tensors by their usual names.
        changes: changed arguments by name.
    """
    if node.operator == "batch_norm":
        return batch_norm(node, len(node.shape), dict(tensors))
    weight, bias = tensors["weight"], tensors["bias"]
    assert weight is not None
    if node.operator == "linear":
        return linear(weight, bias)
    return convolution(node, weight, bias, changes["groups"], changes["padding"])


def convolution(
    node: Node, weight: Tensor, bias: Tensor | None, groups: int, padding: Any
) -> nn.Module:
    """Return a convolution module with these weights and otherwise a call's arguments."""
    named = node.arguments
    rank = weight.dim() - 2
    transposed = "transpose" in node.operator
    settings: dict[str, Any] = {
        "stride": per_axis(named["stride"], rank),
        "padding": padding if isinstance(padding, str) else per_axis(padding, rank),
        "dilation": per_axis(named["dilation"], rank),
        "groups": groups,
        "bias": bias is not None,
        # No initialisation: the weights are replaced at once.
        "device": "meta",
    }
    outputs, inputs = weight.shape[0], weight.shape[1] * groups
    if transposed:
        outputs, inputs = weight.shape[1] * groups, weight.shape[0]
        settings["output_padding"] = per_axis(named["output_padding"], rank)
    module = _CONVOLUTIONS[node.operator](inputs, outputs, tuple(weight.shape[2:]), **settings)
    return _filled(module, weight=weight, bias=bias)


def linear(weight: Tensor, bias: Tensor | None) -> nn.Module:
    """Return a linear module with these weights."""
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    return _filled(module, weight=weight, bias=bias)


def batch_norm(node: Node, rank: int, tensors: dict[str, Tensor | None]) -> nn.Module:
    """Return a batch norm module with a call's arguments; ``tensors`` by their usual names."""
    named = node.arguments
    mean = tensors["running_mean"]
    assert mean is not None
    module = _NORMS[rank](
        len(mean),
        eps=named["eps"],
        momentum=named["momentum"],
        affine=tensors["weight"] is not None,
    )
    module.num_batches_tracked = torch.zeros((), dtype=torch.long, device=mean.device)
    return _filled(module, **tensors)


def recurrent(node: Node, tensors: dict[str, Tensor]) -> nn.Module:
    """Return an LSTM, GRU or RNN module with a call's arguments; ``tensors`` by their usual
    names.
    """
    named = node.arguments
    name = node.operator
    weight = tensors["weight_hh_l0"]
    settings: dict[str, Any] = {"nonlinearity": name[4:]} if name.startswith("rnn_") else {}
    hidden = weight.shape[1]
    if "weight_hr_l0" in tensors:
        settings["proj_size"], hidden = hidden, tensors["weight_hr_l0"].shape[1]
    module = _RECURRENT[name](
        tensors["weight_ih_l0"].shape[1],
        hidden,
        int(named["num_layers"]),
        bias=bool(named["has_biases"]),
        batch_first=bool(named["batch_first"]),
        dropout=float(named["dropout"]),
        bidirectional=bool(named["bidirectional"]),
        device=weight.device,
        dtype=weight.dtype,
        **settings,
    )
    with torch.no_grad():
        for key, tensor in tensors.items():
            getattr(module, key).copy_(tensor)
    return module


def dropout(node: Node) -> nn.Module | None:
    """Return the dropout module of a call; None for kinds that evaluation leaves out."""
    kind = _DROPOUTS.get(node.operator)
    return None if kind is None else kind(float(node.arguments["p"]))


def is_placed(root: nn.Module, path: str) -> bool:
    """Return whether anything is already placed under a path."""
    for name in path.split("."):
        if not hasattr(root, name):
            return False
        root = getattr(root, name)
    return True


def place(root: nn.Module, path: str, value: nn.Module | Tensor) -> None:
    """Place a module, parameter or buffer under a dotted path, creating the modules on the way."""
    *parents, last = path.split(".")
    for name in parents:
        if not hasattr(root, name):
            root.add_module(name, nn.Module())
        root = getattr(root, name)
    if hasattr(root, last):
        return
    if isinstance(value, nn.Module):
        root.add_module(last, value)
    elif isinstance(value, nn.Parameter):
        root.register_parameter(last, value)
    else:
        root.register_buffer(last, value)


def _filled(module: nn.Module, **tensors: Tensor | None) -> nn.Module:
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        tensor = tensor.detach().clone()
        if isinstance(getattr(module, name), nn.Parameter):
            setattr(module, name, nn.Parameter(tensor))
        else:
            setattr(module, name, tensor)
    return module
