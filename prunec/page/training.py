"""What training showed: curves of its metrics, and what the method did to layers and gates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from prunec.charts.figures import Axis, Series, curves, heat, ridges
from prunec.charts.scales import LARGEST, Scale, short, whole_ticks, with_equal_decimals
from prunec.page.reading import Epoch
from prunec.tasks.quality import ACCURACY, MIOU, PIXEL_ACCURACY

COLUMNS = 120  # of a heat map at most
RIDGES = 10  # of a figure at most

PLAIN = Axis()


@dataclass(frozen=True)
class Chart:
    """What is drawn of one or a few metrics that share an axis, and in what unit."""

    title: str
    unit: str
    metrics: tuple[tuple[str, str, str], ...]  # metric, label, meaning
    axis: Axis = PLAIN
    factor: float = 1.0


CHARTS = (
    *(Chart(quality.title, "%", ((f"test_{quality.key}", "test", "test"),
                                 (f"train_{quality.key}", "train", "train")), Axis(digits=4))
      for quality in (ACCURACY, MIOU, PIXEL_ACCURACY)),
    Chart("Training loss", "nats", (("loss", "", "train"),)),
    Chart("MACs as they would ship", "% of dense", (("macs_ratio", "", "left"),),
          Axis(0, 100), 100),
    Chart("Gates open", "", (("gates_open", "", "left"),), Axis(0)),
    Chart("Gates between 0 and ¼", "% of all", (("gates_between", "", "left"),), Axis(0), 100),
    Chart("Learning rate", "", (("learning_rate", "", "plain"),), Axis(0)),
    Chart("Speed", "images / s", (("images_per_second", "", "plain"),), Axis(0)),
    Chart("Time of an epoch", "s", (("seconds", "", "plain"),), Axis(0)),
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A drawing, its title, and its unit or what else must be known to read it."""

    title: str
    unit: str
    drawing: Markup


@dataclass(frozen=True)
class Row:
    """A layer of a heat map: its cells, and its last value."""

    name: str
    cells: Markup
    last: str


@dataclass(frozen=True)
class HeatMap:
    """A quantity of every layer over the epochs; ``ticks`` are positions (percent) and epochs."""

    title: str
    rows: tuple[Row, ...]
    low: str
    high: str
    ticks: tuple[tuple[float, int], ...]


def charts(lines: Sequence[Epoch]) -> list[Figure]:
    """Return the curves of a pass: those that are known, then every other number."""
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
    """Yield a map of layers × epochs for every quantity that the method told of layers."""
    for quantity in dict.fromkeys(name for line in lines for name in line.layers):
        told = _thinned([line for line in lines if quantity in line.layers], COLUMNS)
        every = (value for line in told for value in line.layers[quantity].values())
        values = [value for v in every if (value := _shown(v)) is not None]
        if values:
            yield _heat_map(quantity, told, Scale(min(0.0, *values), max(values)))


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
    """The value where a chart can show it; not-a-number compares as false."""
    return value if value is not None and abs(value) <= LARGEST else None


def histograms(lines: Sequence[Epoch]) -> Iterator[Figure]:
    """Yield the ridges of every histogram that the method told, some epochs of many."""
    for quantity in dict.fromkeys(name for line in lines for name in line.histograms):
        told = [line for line in lines if quantity in line.histograms]
        last = told[-1].histograms[quantity]
        same = [line for line in told if line.histograms[quantity].edges == last.edges]
        rows = [(line.epoch, line.histograms[quantity].counts) for line in _thinned(same, RIDGES)]
        about = f"Histogram of {quantity} by epoch"
        yield Figure(about, "height: √ share", ridges(about, quantity, last.edges, rows))


def _thinned(lines: Sequence[Epoch], most: int) -> list[Epoch]:
    """At most so many of the lines, equally far apart, the first and the last among them."""
    if len(lines) <= most:
        return list(lines)
    return [lines[round(i * (len(lines) - 1) / (most - 1))] for i in range(most)]
