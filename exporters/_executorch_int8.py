"""Integer version of an exported graph, for XNNPACK, with the ranges of real images.

XNNPACK's quantiser is used with four of its choices changed, each of which loses values without a
warning:

- Its ranges are those of single images. Here they are those of all forms with integer kernels.
- It keeps scales above 2⁻¹², so a filter of weights below 2⁻¹³ would become zero. Here a scale has
  no such floor.
- A filter of zeros has a scale at which its bias overflows 32 bits, or is rounded to steps of the
  input (`_int8_scales`).
- A ReLU6 is computed after its input was rounded, in steps of the unclipped range. Here its range
  is the one that is stored, and clipping to it is the ReLU6.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer
from torch import Tensor, nn
from torch.fx import Interpreter
from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationConfig, QuantizationSpec

from prunec.deploy.losses import Stored
from prunec.exporters._int8_calibration import Inputs, Range, samples_at_once
from prunec.exporters._int8_scales import LARGEST, SMALLEST, filter_scales
from prunec.exporters._int8_search import with_idle_producers

_aten = torch.ops.aten
_TRANSPOSED = frozenset({_aten.conv_transpose1d.default, _aten.conv_transpose2d.input})
_KERNELS = _TRANSPOSED | {_aten.conv1d.default, _aten.conv2d.default, _aten.linear.default}
_NAMED_PADS = {
    _aten.conv1d.padding: _aten.conv1d.default,
    _aten.conv2d.padding: _aten.conv2d.default,
}
_DEFAULTS = (None, [1], "valid", [1], 1)  # bias, stride, padding, dilation, groups
_CLIPS = frozenset({
    _aten.hardtanh.default, _aten.hardtanh_.default, _aten.relu6.default, _aten.relu6_.default,
    _aten.clamp.default, _aten.clamp_.default,
})  # fmt: skip
_RELUS = frozenset({_aten.relu.default, _aten.relu_.default})


class Network:
    """Exported float network of one sample.

    Args:
        module: network in evaluation mode.
        example: inputs of one sample.
    """

    def __init__(self, module: nn.Module, example: tuple[Tensor, ...]) -> None:
        self._graph: Any = torch.export.export(module, example).module()
        _with_explicit_pads(self._graph)
        layers = [node for node in self._graph.graph.nodes if node.target in _KERNELS]
        self._kernels = {node.name: str(node.args[1].target) for node in layers}
        _with_own_constants(self._graph, layers)

    def values(self, batches: Sequence[Inputs]) -> Iterator[dict[str, np.ndarray]]:
        """Yield node → value, for a few images at a time."""
        recorder = _Recorder(self._graph)
        values: Iterator[dict[str, np.ndarray]] = samples_at_once(batches, recorder.recorded)
        return values

    def quantised(self, ranges: Mapping[str, Range], left: Collection[str]) -> Any:
        """Return the network with integer kernels, as pairs of quantise and dequantise operators.

        Args:
            ranges: node → range of its values.
            left: names of the kernels whose layers stay float.
        """
        network = copy.deepcopy(self._graph)
        clips = {n.name: (n.target, n.args) for n in network.graph.nodes if _is_clip(n)}
        for node in network.graph.nodes:
            if node.name in clips:  # a form of ReLU, with which kernels are fused
                node.target, node.args = _aten.relu.default, node.args[:1]
        network.recompile()
        quantizer = XNNPACKQuantizer().set_global(_config())
        floats = _float_operations(
            network.graph, {layer for layer, kernel in self._kernels.items() if kernel in left}
        )
        quantizer.set_filter_function(lambda node: node.name not in floats)
        prepared = prepare_pt2e(network, quantizer)
        for node in prepared.graph.nodes:
            # An observer behind it stores the clipped range; without one the clipping stays.
            if node.name in clips and any(user.op != "call_module" for user in node.users):
                target, args = clips[node.name]
                node.target, node.args = target, (node.args[0], *args[1:])
        prepared.recompile()
        _set_ranges(prepared, ranges)
        for node in prepared.graph.nodes:
            if node.target in _KERNELS:
                _set_scales(prepared, node)
        return convert_pt2e(prepared)

    def stored_weights(self, made: Any) -> dict[str, Stored]:
        """Return kernel → its values as the integers of a quantised network represent them."""
        stored = {}
        for node in made.graph.nodes:
            if node.target in _KERNELS and "dequantize_per_channel" in str(node.args[1].target):
                kept, scale, _, axis, *_ = node.args[1].args
                integers, scales = _held(made, kept), _held(made, scale)
                sizes = [-1 if place == axis else 1 for place in range(integers.dim())]
                steps = scales.double().reshape(sizes).expand(integers.shape).numpy()
                values = integers.double().numpy() * steps
                stored[self._kernels[node.name]] = Stored(np.asarray(values), steps)
        return stored

    def layers(self, made: Any) -> tuple[int, list[str]]:
        """Return the number of integer layers of a quantised network, and other layers' kernels."""
        layers = [node for node in made.graph.nodes if node.target in _KERNELS]
        others = [n for n in layers if not all("dequantize" in str(x.target) for x in n.args[:2])]
        return len(layers) - len(others), [self._kernels[node.name] for node in others]


def _config() -> Any:
    activation = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=MinMaxObserver.with_args(eps=SMALLEST),
    )
    weight = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-LARGEST,
        quant_max=LARGEST,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=SMALLEST),
    )
    return QuantizationConfig(activation, activation, weight, None, False)


class _Recorder(Interpreter):
    """Interpreter that keeps every tensor but the stored ones."""

    def recorded(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Return node → value for the inputs of one sample."""
        self._values: dict[str, np.ndarray] = {}
        with torch.no_grad():
            self.run(*map(torch.from_numpy, inputs))
        return self._values

    def run_node(self, n: Any) -> Any:
        made = super().run_node(n)
        if isinstance(made, Tensor) and n.op in ("placeholder", "call_function"):
            # A later operation may compute in place.
            self._values[n.name] = made.detach().numpy().copy()
        return made


def _float_operations(graph: Any, left: Collection[str]) -> set[str]:
    """Return the nodes that stay float: these layers, and what is computed for them alone."""
    nodes = {node.name: node for node in graph.nodes}
    layers = {node.name for node in graph.nodes if node.target in _KERNELS}
    others = [
        node.name
        for node in graph.nodes
        if node.op == "call_function" and node.name not in layers and not _is_fused(node)
    ]
    floats: set[str] = with_idle_producers(
        others, lambda name: (user.name for user in nodes[name].users), left
    )
    return floats


def _is_fused(node: Any) -> bool:
    """Return whether a node is the ReLU of a layer, and so a part of it."""
    before = node.args[0] if node.args and node.target in _RELUS else None
    return before is not None and before.target in _KERNELS and len(before.users) == 1


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


def _with_own_constants(network: Any, layers: Sequence[Any]) -> None:
    """Give each layer a kernel and a bias of its own, in place.

    XNNPACK stores a tensor once, with the type and the scale that its first layer needs.
    """
    seen = set()
    for node in layers:
        for place, given in enumerate(node.args[1:3], start=1):
            if given is not None and given in seen:
                name = f"{node.name}_constant_{place}"
                network.register_parameter(name, nn.Parameter(_held(network, given).clone()))
                with network.graph.inserting_before(node):
                    own = network.graph.get_attr(name)
                own.meta = copy.copy(given.meta)
                node.update_arg(place, own)
            seen.add(given)
    network.recompile()


def _is_clip(node: Any) -> bool:
    """Return whether a node clips values to 0 and a positive number."""
    if node.target not in _CLIPS:
        return False
    if "relu6" in str(node.target):
        return True
    low, high = (*node.args[1:3], None, None)[:2]
    return low == 0 and isinstance(high, (int, float)) and high > 0


def _set_ranges(prepared: Any, ranges: Mapping[str, Range]) -> None:
    """Give every observer of activations the range of what it observes, at several places maybe."""
    seen: dict[Any, list[Range]] = {}  # an observer may have several names
    for node in prepared.graph.nodes:
        observer = prepared.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(observer, MinMaxObserver):
            given = node.args[0]
            ends = ranges.get(given.name) or _ends_of(_held(prepared, given))
            seen.setdefault(observer, []).append(ends)
    for observer, several in seen.items():
        observer.min_val = torch.tensor(min(low for low, _ in several))
        observer.max_val = torch.tensor(max(high for _, high in several))


def _ends_of(values: Tensor) -> Range:
    return min(float(values.min()), 0.0), max(float(values.max()), 0.0)


def _set_scales(prepared: Any, kernel: Any) -> None:
    """Give the observer of a kernel the range at which its scales are those of its filters."""
    given, weight, *rest = kernel.args
    if given.op != "call_module" or weight.op != "call_module":
        return
    step, _ = prepared.get_submodule(given.target).calculate_qparams()
    observer = prepared.get_submodule(weight.target)
    values = _held(prepared, weight.args[0])
    observer(values)  # for the sizes of its range
    filters = values.transpose(0, 1) if kernel.target in _TRANSPOSED else values
    bias = _held(prepared, rest[0]).numpy() if rest and rest[0] is not None else None
    scales = filter_scales(filters.numpy(), bias, float(step))
    observer.max_val.copy_(torch.from_numpy(scales * LARGEST))
    observer.min_val.copy_(-observer.max_val)


def _held(graph: Any, node: Any) -> Tensor:
    """Return the tensor that a node reads by its name in the module."""
    value = graph
    for part in node.target.split("."):
        value = getattr(value, part)
    return value.detach()  # type: ignore[no-any-return]
