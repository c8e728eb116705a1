"""Speed of each layer of native code, next to the dense network and to the machine's peaks.

Roofline model: Williams, Waterman and Patterson, 2009, doi:10.1145/1498765.1498785.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup
from rich.console import RenderableType
from rich.text import Text

from prunec.charts.roofline import Roof, Spot, roofline
from prunec.deploy.native.peaks import Peaks
from prunec.deploy.runner import LayerTime
from prunec.tables import table
from prunec.wording import percent

_ENDS = ("_nchwc", "_token_0", "_quant")
"""Suffixes that onnxruntime adds to a node's name when it changes its layout."""
_FILTERS = frozenset({"Conv", "FusedConv", "ConvTranspose"})
_PRODUCTS = frozenset({"Gemm", "MatMul", "FusedGemm", "FusedMatMul"})


def layer_report(
    ours: Sequence[LayerTime], theirs: Sequence[LayerTime], peaks: Peaks
) -> Iterator[RenderableType]:
    """Yield a table of the layers that have weights, in order, and a line about the others.

    Args:
        ours: calls of the native code's kernels.
        theirs: nodes of the dense network in onnxruntime.
        peaks: of one thread of this machine.
    """
    known = _paired(ours, theirs)
    columns = ("density", "ms", "GMAC/s", "of peak", "of roof", "dense, ms")
    made = table("shipped: every layer with weights", "layer", "kernel", *columns, numbers=columns)
    rest = 0.0
    for layer in ours:
        if layer.work is None:
            rest += layer.milliseconds
            continue
        speed, roof = _speed(layer), peaks.roof(_intensity(layer))
        dense = known.get(layer.name)
        made.add_row(
            layer.name, layer.operator, percent(layer.work.density), f"{layer.milliseconds:.4f}",
            f"{speed:.2f}", percent(speed / peaks.gmacs, 0), percent(speed / roof, 0),
            "—" if dense is None else f"{dense.milliseconds:.4f}",
        )  # fmt: skip
    yield made
    others = sum(layer.work is None for layer in ours)
    yield Text(
        f"The other {others} kernel calls take {rest:.3f} ms; all layers of the dense network take "
        f"{sum(x.milliseconds for x in theirs):.3f} ms. GMAC/s: of nonzero weights. "
        f"Peaks of one thread, measured now: {peaks.gmacs:.1f} GMAC/s in registers, "
        f"{peaks.gbytes:.1f} GB/s from memory. A layer's roof: the lower of the first and of what "
        "the second allows for its weights, input and output; caches lift it."
    )


def layer_roofline(
    ours: Sequence[LayerTime], theirs: Sequence[LayerTime], peaks: Peaks
) -> list[Markup]:
    """Return a roofline figure of all layers with weights, and of their dense counterparts."""
    known, spots = _paired(ours, theirs), []
    for layer in (layer for layer in ours if layer.work is not None):
        spots.append(Spot(layer.name, "shipped", _intensity(layer), _speed(layer)))
        if layer.name in known and layer.work is not None:
            # The dense layer makes all products, and reads four bytes of every weight.
            dense = layer.work.products / max(layer.work.density, 1e-9)
            speed = dense / known[layer.name].milliseconds / 1e6
            spots.append(Spot(layer.name, "dense", dense / layer.work.dense_bytes, speed))
    return roofline(Roof(peaks.gmacs, peaks.gbytes), spots)


def _paired(ours: Sequence[LayerTime], theirs: Sequence[LayerTime]) -> dict[str, LayerTime]:
    """Match our layers with dense ones by name, and the remaining ones by order.

    Returns:
        Name of our layer → dense layer.
    """
    named = {}
    for layer in theirs:
        name = layer.name
        for end in _ENDS:
            name = name.removesuffix(end)
        named[name] = layer
    wanted = [layer for layer in ours if layer.work is not None]
    known = {layer.name: named[layer.name] for layer in wanted if layer.name in named}
    # By order only within a kind: there a fused or renamed node keeps its place.
    for linear, operators in ((False, _FILTERS), (True, _PRODUCTS)):
        kind = [x for x in wanted if x.operator.endswith("linear") == linear]
        left = [x for x in kind if x.name not in known]
        others = [x for x in theirs if x.operator in operators and x not in known.values()]
        # Otherwise a node was split or merged, and order proves nothing.
        if len(left) == len(others):
            known |= {layer.name: other for layer, other in zip(left, others, strict=True)}
    return known


def _speed(layer: LayerTime) -> float:
    """Return 10⁹ multiply-adds per second."""
    assert layer.work is not None
    # products / ms = 10³ per second, / 10⁶ = 10⁹; 1e-9: a clock may show no time at all.
    return layer.work.products / max(layer.milliseconds, 1e-9) / 1e6


def _intensity(layer: LayerTime) -> float:
    """Return multiply-adds per byte of weights, input and output."""
    assert layer.work is not None
    return max(layer.work.products, 1) / layer.work.bytes
