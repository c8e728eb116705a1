"""Integer version of an exported graph, for XNNPACK, with the ranges of real images.

XNNPACK's quantiser is used with three of its choices changed, each of which loses values without a
warning:

- It keeps scales above 2⁻¹², so a filter of weights below 2⁻¹³ would become zero. Here a scale has
  no such floor.
- A filter of zeros has a scale at which its bias overflows 32 bits, or is rounded to steps of the
  input. Here the scale is at least that at which the bias takes `_BITS` bits.
- A ReLU6 is computed after its input was rounded, in steps of the unclipped range. Here its range
  is the one that is stored, and clipping to it is the ReLU6.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer
from torch import Tensor, nn
from torchao.quantization.pt2e import HistogramObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationConfig, QuantizationSpec

from prunec.deploy.losses import Stored

_EPS = 2.0**-100  # smallest scale: products of two are normal float32 or zero
_BITS = 28  # of a bias: room is left in 32 bits for the products that are added to it
_LARGEST = 127  # largest integer of a weight

_aten = torch.ops.aten
_KERNELS = frozenset({
    _aten.conv1d.default, _aten.conv2d.default, _aten.linear.default,
    _aten.conv_transpose1d.default, _aten.conv_transpose2d.input,
})  # fmt: skip
_NAMED_PADS = {
    _aten.conv1d.padding: _aten.conv1d.default,
    _aten.conv2d.padding: _aten.conv2d.default,
}
_DEFAULTS = (None, [1], "valid", [1], 1)  # bias, stride, padding, dilation, groups
_CLIPS = frozenset({
    _aten.hardtanh.default, _aten.hardtanh_.default, _aten.relu6.default, _aten.relu6_.default,
    _aten.clamp.default, _aten.clamp_.default,
})  # fmt: skip


def quantised(
    module: nn.Module, example: tuple[Tensor, ...], samples: Iterable[tuple[Tensor, ...]]
) -> nn.Module:
    """Return the network with integer kernels, as pairs of quantise and dequantise operators.

    Args:
        module: network in evaluation mode.
        example: inputs of one sample.
        samples: inputs of one real sample each, for the ranges.
    """
    network = torch.export.export(module, example).module()
    _with_explicit_pads(network)
    clips = {n.name: (n.target, n.args) for n in network.graph.nodes if _is_clip(n)}
    for node in network.graph.nodes:
        if node.name in clips:  # a form of ReLU, with which kernels are fused
            node.target, node.args = _aten.relu.default, node.args[:1]
    network.recompile()
    prepared = prepare_pt2e(network, XNNPACKQuantizer().set_global(_config()))
    relus = [node for node in prepared.graph.nodes if node.name in clips]
    for node in relus:
        target, args = clips[node.name]
        node.target, node.args = target, (node.args[0], *args[1:])
    prepared.recompile()
    with torch.no_grad():
        for sample in samples:
            prepared(*sample)
    for node in relus:
        # An observer behind it stores the clipped range; without one the clipping stays.
        if _observer(prepared, node) is not None:
            node.target, node.args = _aten.relu.default, node.args[:1]
    prepared.recompile()
    for kernel in _layers(prepared):
        _widen(prepared, kernel)
    made: nn.Module = convert_pt2e(prepared)
    return made


def stored_weights(made: Any) -> dict[str, Stored]:
    """Return the kernels of a quantised network as its integers represent them.

    The keys are the names of their layers' biases, ``.bias`` replaced: converted kernels have no
    names of their own. Kernels of layers without a bias are left out.
    """
    stored = {}
    for node in made.graph.nodes:
        if node.target not in _KERNELS or len(node.args) < 3 or node.args[2] is None:
            continue
        weight, bias = node.args[1], node.args[2]
        if "dequantize_per_channel" not in str(weight.target):
            continue
        integers, scales, axis = (_held(made, weight.args[0]), _held(made, weight.args[1]),
                                  weight.args[3])  # fmt: skip
        sizes = [-1 if place == axis else 1 for place in range(integers.dim())]
        steps = scales.double().reshape(sizes).expand(integers.shape).numpy()
        values = integers.double().numpy() * steps
        stored[f"{bias.target.removesuffix('.bias')}.weight"] = Stored(np.asarray(values), steps)
    return stored


def float_layers(made: Any) -> int:
    """Return the number of convolutions and linear layers of a quantised network in float."""
    return sum(
        "dequantize" not in str(node.args[0].target) or "dequantize" not in str(node.args[1].target)
        for node in made.graph.nodes
        if str(node.target).startswith(("aten.conv", "aten.linear"))
    )


def _config() -> Any:
    activation = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=HistogramObserver.with_args(eps=_EPS),
    )
    weight = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-_LARGEST,
        quant_max=_LARGEST,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=_EPS),
    )
    return QuantizationConfig(activation, activation, weight, None, False)


def _with_explicit_pads(network: Any) -> None:
    """Write the pads of ``padding="same"`` as numbers, in place.

    The quantiser leaves such layers in float, between integers that the runtime computes wrongly.

    Raises:
        ValueError: the pads before and behind are unequal, which no number expresses.
    """
    for node in network.graph.nodes:
        if node.target not in _NAMED_PADS:
            continue
        settings = (*node.args[2:], *_DEFAULTS[len(node.args) - 2 :])
        given, weight = node.args[:2]
        bias, stride, padding, dilation, groups = settings
        sizes = _held(network, weight).shape[2:]
        steps = [dilation] * len(sizes) if isinstance(dilation, int) else list(dilation)
        if len(steps) < len(sizes):
            steps *= len(sizes)
        sums = [step * (size - 1) for step, size in zip(steps, sizes, strict=True)]
        if padding == "same" and any(total % 2 for total in sums):
            raise ValueError(f'padding="same" of {node.name} pads unequally: use nn.ZeroPad2d')
        pads = [total // 2 if padding == "same" else 0 for total in sums]
        node.target = _NAMED_PADS[node.target]
        node.args = (given, weight, bias, stride, pads, dilation, groups)
    network.recompile()


def _is_clip(node: Any) -> bool:
    """Return whether a node clips values to 0 and a positive number."""
    if node.target not in _CLIPS:
        return False
    if "relu6" in str(node.target):
        return True
    low, high = (*node.args[1:3], None, None)[:2]
    return low == 0 and isinstance(high, (int, float)) and high > 0


def _layers(prepared: Any) -> Iterator[Any]:
    return (node for node in prepared.graph.nodes if node.target in _KERNELS)


def _observer(prepared: Any, node: Any) -> Any:
    """Return the observer of a node's values; None if they stay float."""
    users = [user for user in node.users if user.op == "call_module"]
    return prepared.get_submodule(users[0].target) if users else None


def _widen(prepared: Any, kernel: Any) -> None:
    """Raise the range of the filters that are too small for their bias, or zero."""
    given, weight, *rest = kernel.args
    if given.op != "call_module" or weight.op != "call_module":
        return
    step, _ = prepared.get_submodule(given.target).calculate_qparams()
    observer = prepared.get_submodule(weight.target)
    observer(_held(prepared, weight.args[0]))  # the weights are known; images may be none
    largest = torch.maximum(observer.max_val, -observer.min_val)
    # A filter of zeros may have any scale; that of another one is far from any limit.
    least = torch.where(largest > 0, 0.0, float(largest.max()) or 1.0)
    if rest and rest[0] is not None:
        bias = _held(prepared, rest[0]).abs().double()
        wanted = _LARGEST * bias / (float(step) * 2.0**_BITS)
        zero = (largest == 0) & (bias > 0)
        least = torch.where(zero, wanted, torch.maximum(least.double(), wanted)).float()
    observer.max_val.copy_(torch.maximum(observer.max_val, least))


def _held(graph: Any, node: Any) -> Tensor:
    """Return the tensor that a node reads by its name in the module."""
    value = graph
    for part in node.target.split("."):
        value = getattr(value, part)
    return value.detach()  # type: ignore[no-any-return]
