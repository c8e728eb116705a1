"""Section on training: curves of metrics, heat maps of layers, histograms of gates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from prunec.charts.figures import Axis, Series, curves, heat, ridges
from prunec.charts.scales import LARGEST, Scale, short, whole_ticks, with_equal_decimals
from prunec.page.reading import Epoch
from prunec.tasks.quality import ACCURACY, MIOU, PIXEL_ACCURACY

COLUMNS = 120  # columns of a heat map at most: narrower cells cannot be told apart
RIDGES = 10  # histograms of a figure at most: it stays on one screen

PLAIN = Axis()


@dataclass(frozen=True)
class Chart:
    """A chart of metrics that share an axis.

    Attributes:
        title: title of the chart.
        unit: unit of its values.
        metrics: (key of the metric, label of its curve, meaning by which it is coloured).
        axis: range of the vertical axis.
        factor: factor from the metric to the unit.
    """

    title: str
    unit: str
    metrics: tuple[tuple[str, str, str], ...]
    axis: Axis = PLAIN
    factor: float = 1.0


CHARTS = (
    *(Chart(quality.title, "%", ((f"test_{quality.key}", "test", "test"),
                                 (f"train_{quality.key}", "train", "train")), Axis(digits=4))
      for quality in (ACCURACY, MIOU, PIXEL_ACCURACY)),
    Chart("Training loss", "nats", (("loss", "", "train"),)),
    Chart("MACs as they would ship", "% of dense", (("macs_ratio", "", "left"),),
          Axis(0, 100), 100),
    Chart("Gates open", "channels that stay", (("gates_open", "", "left"),), Axis(0)),
    Chart("Gates between 0 and ¼", "% of all, undecided", (("gates_between", "", "left"),), Axis(0),
          100),
    Chart("Learning rate", "", (("learning_rate", "", "plain"),), Axis(0)),
    Chart("Speed", "images / s", (("images_per_second", "", "plain"),), Axis(0)),
    Chart("Time of an epoch", "s", (("seconds", "", "plain"),), Axis(0)),
)  # fmt: skip


_HEIGHT = "height: √ share"
_NOTES = {"gate g": f"a factor of a channel; 0 removes it. {_HEIGHT[0].upper()}{_HEIGHT[1:]}"}
"""Quantity → note for reading its histogram, where its name does not say enough."""


@dataclass(frozen=True)
class Figure:
    """A drawing with its title, and its unit or a note for reading it."""

    title: str
    unit: str
    drawing: Markup


@dataclass(frozen=True)
class Row:
    """A row of a heat map: layer, cells, last value."""

    name: str
    cells: Markup
    last: str


@dataclass(frozen=True)
class HeatMap:
    """A quantity per layer over the epochs; ``ticks`` are (position in percent, epoch)."""

    title: str
    rows: tuple[Row, ...]
    low: str
    high: str
    ticks: tuple[tuple[float, int], ...]


def charts(lines: Sequence[Epoch]) -> list[Figure]:
    """Return the curves of a pass: the charts above, then one for every other metric."""
    known = {metric for chart in CHARTS for metric, _, _ in chart.metrics}
    others = dict.fromkeys(name for line in lines for name in line.numbers if name not in known)
    plain = [Chart(_title(name), "", ((name, "", "plain"),)) for name in others]
    return [figure for chart in (*CHARTS, *plain) if (figure := _drawn(chart, lines))]


def _drawn(chart: Chart, lines: Sequence[Epoch]) -> Figure | None:
    series = []
    for metric, label, kind in chart.metrics:
        points = [
            (float(line.epoch), chart.factor * line.numbers[metric])
            for line in lines
            if metric in line.numbers
        ]
        if points:
            series.append(Series(label, kind, tuple(points)))
    if not series:
        return None
    about = f"{chart.title} by epoch{chart.unit and ', ' + chart.unit}"
    return Figure(chart.title, chart.unit, curves(about, chart.axis, series))


def _title(name: str) -> str:
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def heat_maps(lines: Sequence[Epoch]) -> Iterator[HeatMap]:
    """Yield a heat map, layers × epochs, for every quantity that the method logs per layer."""
    for quantity in dict.fromkeys(name for line in lines for name in line.layers):
        logged = _thinned([line for line in lines if quantity in line.layers], COLUMNS)
        every = (value for line in logged for value in line.layers[quantity].values())
        values = [value for v in every if (value := _shown(v)) is not None]
        if values:
            # From 0: densities and thresholds of different layers are compared by their size.
            yield _heat_map(quantity, logged, Scale(min(0.0, *values), max(values)))


def _heat_map(quantity: str, lines: Sequence[Epoch], scale: Scale) -> HeatMap:
    epochs = [line.epoch for line in lines]
    rows, written = [], with_equal_decimals((scale.low, scale.high))
    for layer in dict.fromkeys(name for line in lines for name in line.layers[quantity]):
        values = [_shown(line.layers[quantity].get(layer)) for line in lines]
        last = next((v for v in reversed(values) if v is not None), None)
        cells = heat(f"{quantity}, {layer}", epochs, values, scale)
        rows.append(Row(layer, cells, "—" if last is None else written(last)))
    marked = set(whole_ticks(epochs[0], epochs[-1], 5))
    ticks = tuple((100 * (i + 0.5) / len(epochs), e) for i, e in enumerate(epochs) if e in marked)
    return HeatMap(_title(quantity), tuple(rows), short(scale.low), short(scale.high), ticks)


def _shown(value: float | None) -> float | None:
    """Return the value if a chart can show it, else None; the comparison is false for NaN."""
    return value if value is not None and abs(value) <= LARGEST else None


def histograms(lines: Sequence[Epoch]) -> Iterator[Figure]:
    """Yield a ridge plot for every histogram that the method logs, of at most ten epochs."""
    for quantity in dict.fromkeys(name for line in lines for name in line.histograms):
        logged = [line for line in lines if quantity in line.histograms]
        last = logged[-1].histograms[quantity]
        # Ridges share an axis, so the edges must be those of the last epoch.
        same = [line for line in logged if line.histograms[quantity].edges == last.edges]
        rows = [(line.epoch, line.histograms[quantity].counts) for line in _thinned(same, RIDGES)]
        about = f"Histogram of {quantity} by epoch"
        yield Figure(
            about, _NOTES.get(quantity, _HEIGHT), ridges(about, quantity, last.edges, rows)
        )


def _thinned(lines: Sequence[Epoch], most: int) -> list[Epoch]:
    """Return at most ``most`` of the lines, evenly spaced, with the first and the last."""
    if len(lines) <= most:
        return list(lines)
    return [lines[round(i * (len(lines) - 1) / (most - 1))] for i in range(most)]
