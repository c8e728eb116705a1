"""Layers of a network: channels and cost, now and in the dense network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from prunec.cost import Cost, LayerCost

_WIDTHS = (
    ("in_channels", "out_channels"),
    ("in_features", "out_features"),
    ("input_size", "hidden_size"),
)


@dataclass(frozen=True)
class Layer:
    """A layer with MACs or weights; each pair is (now, dense).

    Attributes:
        name: module path, or name of the graph node if there is no module.
        operator: ATen operator.
        inputs: input channels; None if the layer owns no weight.
        outputs: output channels; None if the layer owns no weight.
        macs: MACs of one sample, summed over all calls.
        params: kernel weights.
        nonzero_params: non-zero kernel weights now.
    """

    name: str
    operator: str
    inputs: tuple[int, int] | None
    outputs: tuple[int, int] | None
    macs: tuple[int, int]
    params: tuple[int, int]
    nonzero_params: int


def layers_of(dense: nn.Module, before: Cost, now: nn.Module, after: Cost) -> tuple[Layer, ...]:
    """Return all layers with MACs or weights, in the order of computation.

    Args:
        dense: original network.
        before: its cost.
        now: compact network, in which layers keep their names.
        after: its cost.
    """
    old, new = _by_name(before), _by_name(after)
    none = LayerCost("", "", 0, 0, 0, 0)
    layers = []
    # Layers of the dense network first: removed ones keep their place.
    for name in dict.fromkeys((*old, *new)):
        was, still = old.get(name, none), new.get(name, none)
        total = _widths(dense, name)
        left = _widths(now, name) if name in new else (0, 0)
        reads = (left[0], total[0]) if left and total else None
        makes = (left[1], total[1]) if left and total else None
        layers.append(
            Layer(
                name,
                was.operator or still.operator,
                reads,
                makes,
                (still.macs, was.macs),
                (still.params, was.params),
                still.nonzero_params,
            )
        )
    return tuple(layers)


def _by_name(cost: Cost) -> dict[str, LayerCost]:
    """Return layer name → cost, summed over calls."""
    costs: dict[str, LayerCost] = {}
    for layer in cost.layers:
        known = costs.get(layer.name)
        costs[layer.name] = layer if known is None else _sum(known, layer)
    return costs


def _sum(a: LayerCost, b: LayerCost) -> LayerCost:
    return LayerCost(
        a.name,
        a.operator,
        a.macs + b.macs,
        a.nonzero_macs + b.nonzero_macs,
        a.params + b.params,
        a.nonzero_params + b.nonzero_params,
    )


def _widths(network: nn.Module, name: str) -> tuple[int, int] | None:
    """Return input and output channels of a layer; None if there is no such module or weight."""
    try:
        part = network.get_submodule(name)
    except AttributeError:
        return None
    for inputs, outputs in _WIDTHS:
        if hasattr(part, inputs):
            return int(getattr(part, inputs)), int(getattr(part, outputs))
    weight = getattr(part, "weight", None)
    if isinstance(weight, Tensor) and weight.dim() > 1:
        return weight.shape[1], weight.shape[0]
    return None
