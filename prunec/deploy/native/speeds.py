"""Speeds of the layers of native code, next to the dense network's and to the machine's peaks.

Roofline model: Williams, Waterman and Patterson, 2009, doi:10.1145/1498765.1498785.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from prunec.charts.roofline import Roof, Spot, roofline
from prunec.deploy.native.peaks import Peaks
from prunec.deploy.runner import LayerTime, LayerWork
from prunec.wording import percent

_ENDS = ("_nchwc", "_token_0", "_quant")
"""Suffixes that onnxruntime adds to a node's name when it changes its layout."""
_FILTERS = frozenset({"Conv", "FusedConv", "ConvTranspose"})
_PRODUCTS = frozenset({"Gemm", "MatMul", "FusedGemm", "FusedMatMul"})


@dataclass(frozen=True)
class LayerSpeed:
    """Speed of one layer with weights.

    Attributes:
        name: name of the layer.
        kernel: kernel that computes it.
        density: share of nonzero weights.
        milliseconds: its time.
        gmacs: multiply-adds with nonzero weights, in GMAC/s.
        of_peak: share of the machine's arithmetic peak.
        of_roof: share of the lower of that peak and the memory's.
        dense_ms: time of the dense layer; None where it is not known.
    """

    name: str
    kernel: str
    density: float
    milliseconds: float
    gmacs: float
    of_peak: float
    of_roof: float
    dense_ms: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        """The values as text, in order."""
        dense = "—" if self.dense_ms is None else f"{self.dense_ms:.4f}"
        return (
            self.name, self.kernel, percent(self.density), f"{self.milliseconds:.4f}",
            f"{self.gmacs:.2f}", percent(self.of_peak, 0), percent(self.of_roof, 0), dense,
        )  # fmt: skip


COLUMNS = ("layer", "kernel", "density", "ms", "GMAC/s", "of peak", "of roof", "dense, ms")
"""Names of the cells of a layer."""


def layer_speeds(
    ours: Sequence[LayerTime], theirs: Sequence[LayerTime], peaks: Peaks
) -> Iterator[LayerSpeed]:
    """Yield the speed of every layer with weights, in order.

    Args:
        ours: calls of the native code's kernels.
        theirs: nodes of the dense network in onnxruntime.
        peaks: of one thread of this machine.
    """
    known = _paired(ours, theirs)
    for layer in ours:
        if layer.work is None:
            continue
        speed, dense = _speed(layer, layer.work), known.get(layer.name)
        yield LayerSpeed(
            layer.name, layer.operator, layer.work.density, layer.milliseconds, speed,
            speed / peaks.gmacs, speed / peaks.roof(_intensity(layer.work)),
            None if dense is None else dense.milliseconds,
        )  # fmt: skip


def others_line(ours: Sequence[LayerTime], theirs: Sequence[LayerTime], peaks: Peaks) -> str:
    """Return sentences on the calls without weights, the dense network and the peaks."""
    rest = [layer.milliseconds for layer in ours if layer.work is None]
    return (
        f"The other {len(rest)} kernel calls take {sum(rest):.3f} ms; all layers of the dense "
        f"network take {sum(x.milliseconds for x in theirs):.3f} ms. GMAC/s: of nonzero weights. "
        f"Peaks of one thread, measured then: {peaks.gmacs:.1f} GMAC/s in registers, "
        f"{peaks.gbytes:.1f} GB/s from memory. A layer's roof: the lower of the first and of what "
        "the second allows for its weights, input and output; caches lift it."
    )


def layer_roofline(
    ours: Sequence[LayerTime], theirs: Sequence[LayerTime], peaks: Peaks
) -> list[Markup]:
    """Return a roofline figure of all layers with weights, and of their dense counterparts."""
    known, spots = _paired(ours, theirs), []
    for layer in ours:
        if layer.work is None:
            continue
        speed = _speed(layer, layer.work)
        spots.append(Spot(layer.name, "shipped", _intensity(layer.work), speed))
        if layer.name in known:
            # The dense layer makes all products, and reads four bytes of every weight.
            dense = layer.work.products / max(layer.work.density, 1e-9)
            speed = dense / max(known[layer.name].milliseconds, 1e-9) / 1e6
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


def _speed(layer: LayerTime, work: LayerWork) -> float:
    """Return 10⁹ multiply-adds per second."""
    return work.products / max(layer.milliseconds, 1e-9) / 1e6


def _intensity(work: LayerWork) -> float:
    """Return multiply-adds per byte of weights, input and output."""
    return max(work.products, 1) / work.bytes
