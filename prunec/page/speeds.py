"""Section on the layers of native code: their times and speeds, and the roofline figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from markupsafe import Markup
from pydantic import BaseModel, Field

from prunec.charts import svg
from prunec.charts.roofline import HEIGHT, WIDTH
from prunec.charts.scales import LARGEST
from prunec.deploy.native.peaks import Peaks
from prunec.deploy.native.speeds import COLUMNS, layer_roofline, layer_speeds, others_line
from prunec.deploy.runner import LayerTime, LayerWork

Number = Annotated[float, Field(ge=0, le=LARGEST)]
Count = Annotated[int, Field(ge=0, le=10**15)]
# Smallest divisors: a damaged record must not divide by zero, or overflow.
Rate = Annotated[float, Field(ge=1e-6, le=1e9)]
Bytes = Annotated[int, Field(ge=1, le=10**15)]


class _Work(BaseModel):
    density: Annotated[float, Field(ge=0, le=1)]
    products: Count
    bytes: Bytes
    dense_bytes: Bytes


class _Layer(BaseModel):
    name: str
    operator: str
    milliseconds: Number
    work: _Work | None = None

    @property
    def timed(self) -> LayerTime:
        work = LayerWork(**self.work.model_dump()) if self.work else None
        return LayerTime(self.name, self.operator, self.milliseconds, work)


class _Peaks(BaseModel):
    gmacs: Rate
    gbytes: Rate


class MeasuredLayers(BaseModel):
    """The record that ``prunec bench --layers`` writes."""

    runner: str
    measured: str = ""
    peaks: _Peaks
    shipped: tuple[_Layer, ...]
    dense: tuple[_Layer, ...]


@dataclass(frozen=True)
class SpeedSection:
    """Contents of the section.

    Attributes:
        runner: runtimes and devices that were timed, and when.
        columns: names of the columns.
        rows: one row of cells per layer with weights.
        figure: the roofline.
        line: sentences below the table.
    """

    runner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    figure: Markup
    line: str


def speed_section(record: MeasuredLayers | None) -> SpeedSection | None:
    """Return the section; None where no layers were timed."""
    if record is None:
        return None
    ours, theirs = ([layer.timed for layer in own] for own in (record.shipped, record.dense))
    peaks = Peaks(record.peaks.gmacs, record.peaks.gbytes)
    rows = tuple(layer.cells for layer in layer_speeds(ours, theirs, peaks))
    parts = layer_roofline(ours, theirs, peaks)
    figure = svg.drawing(WIDTH, HEIGHT, "roofline of the layers", parts, "roofline")
    when = record.measured.partition("T")[0]
    runner = f"{record.runner}, {when}" if when else record.runner
    return SpeedSection(runner, COLUMNS, rows, figure, others_line(ours, theirs, peaks))
