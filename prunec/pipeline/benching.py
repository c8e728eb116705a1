"""Latency of a shipped file beside the dense one, or of any two files."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from markupsafe import Markup
from rich.console import RenderableType
from rich.text import Text

from prunec.charts import svg
from prunec.deploy.runner import LayerTime
from prunec.deploy.timing import quartiles
from prunec.errors import RunError
from prunec.pipeline.layer_report import layer_report, layer_roofline
from prunec.pipeline.measuring import Bench, Measurement
from prunec.store.runs import RunFolder
from prunec.store.states import state_of, unfinished
from prunec.tables import FittedTable, table

MOST_LAYERS = 15  # in a table: the slowest
STYLE = (
    "text{font:12px sans-serif}.paper{fill:#fff}.dense{fill:#9aa5b1}.shipped{fill:#2b6cb0}"
    ".spread{stroke:#222;stroke-width:1.5}.grid{stroke:#e4e7eb}.roof{fill:none;stroke:#222}"
    ".mark,.unit{font-size:11px;fill:#52606d}.spot{fill-opacity:.8}"
)


def exported_files(run: RunFolder, runner: str = "") -> tuple[Path, Path]:
    """Return the file that a run ships, for a runner the first it opens, and the dense network's.

    Raises:
        RunError: the run has no export yet.
    """
    shipped, dense = run.export.shipped("onnx", ".onnx"), run.export.dense("onnx", ".onnx")
    if not (shipped.is_file() and dense.is_file()):
        if state_of(run) in ("interrupted", "failed", "training"):
            raise unfinished(run)
        raise RunError(
            f"{run.path} has no export", remedy=f"Export first: prunec export {run.path}"
        )
    return _opened_by(run, runner) if runner == "native" else shipped, dense


def _opened_by(run: RunFolder, runner: str) -> Path:
    shipped = run.export.shipped("c", ".c")
    if not shipped.is_file():
        raise RunError(
            f"{run.path} holds nothing that {runner} runs",
            remedy=f"Export it first: prunec export {run.path} --c",
        )
    return shipped


def bench_tables(name: str, found: Bench) -> list[RenderableType]:
    """Return what was measured, for people."""
    columns = ("batch", "threads", "dense, ms", "shipped, ms", "ratio", "at 99 %", "MACs")
    made = table(f"{name}: {found.runner}", *columns, numbers=columns)
    for m in found.measurements:
        made.add_row(*_row(m, found.macs))
    lines = [
        "Times are medians of rounds, ± half the distance of their quartiles. Ratio: the median of "
        "each round's shipped / dense (--json has the rounds); with the confidence stated it lies "
        "in the interval. MACs: shipped / dense."
    ]
    lines += list(_speeds(found))
    parts: list[RenderableType] = [made, *(Text(line) for line in lines)]
    if found.layers and found.peaks:
        parts += layer_report(*found.layers, found.peaks)
    elif found.layers:
        parts += [_layers(side, own) for side, own in zip(("shipped", "dense"), found.layers,
                                                          strict=True)]  # fmt: skip
    return parts


def _row(m: Measurement, macs: Sequence[int | None]) -> tuple[str, ...]:
    latency = m.latency
    ours, theirs = macs
    ratio = f"{latency.ratio:.3f}" if latency.apart else "not told apart"
    interval = f"{latency.least:.3f}–{latency.most:.3f}"
    sides = [_spread([pair[side] for pair in latency.rounds]) for side in (1, 0)]
    known = ours is not None and theirs
    return (str(m.batch), str(m.threads), *sides, ratio, interval,
            f"{(ours or 0) / (theirs or 1):.3f}" if known else "?")  # fmt: skip


def _spread(times: Sequence[float]) -> str:
    first, third = quartiles(times)
    return f"{statistics.median(times):.3g} ± {(third - first) / 2:.1g}"


def _speeds(found: Bench) -> Iterator[str]:
    """What the fastest setting reaches, and the memory."""
    sides = [m.to_dict(found.macs) for m in found.measurements]
    for name in ("shipped", "dense"):
        best = max(sides, key=lambda m: m[name]["samples_per_second"])
        speed = best[name]["macs_per_second"]
        macs = f", {speed / 1e9:.3g} GMAC/s" if speed else ""
        yield (
            f"{name}: at most {best[name]['samples_per_second']:,.0f} samples/s (batch "
            f"{best['batch']}, {best['threads']} thread{'s' if best['threads'] > 1 else ''}){macs}"
        )
    if found.memory:
        ours, theirs = found.memory
        yield (
            "Resident memory beyond an empty process with the runtime: shipped "
            f"{ours.loaded / 1e6:.1f} MB loaded, {ours.peak / 1e6:.1f} MB at most; dense "
            f"{theirs.loaded / 1e6:.1f} MB and {theirs.peak / 1e6:.1f} MB"
        )


def _layers(side: str, layers: Sequence[LayerTime]) -> FittedTable:
    numbers = ("ms", "share")
    whole = sum(layer.milliseconds for layer in layers) or 1.0
    made = table(f"{side}: the slowest of {len(layers)} layers", "layer", "operator", *numbers,
                 numbers=numbers)  # fmt: skip
    for layer in sorted(layers, key=lambda x: -x.milliseconds)[:MOST_LAYERS]:
        share = f"{100 * layer.milliseconds / whole:.1f} %"
        made.add_row(layer.name, layer.operator, f"{layer.milliseconds:.4f}", share)
    return made


def bench_plot(name: str, found: Bench) -> Markup:
    """Return bars of both files' medians in every setting, with their quartiles."""
    left, width, row = 130.0, 640.0, 48.0
    rounds = [m.latency.rounds for m in found.measurements]
    parts = [svg.text("title", (left, 16), "start", f"{name}: ms of a sample, {found.runner}")]
    each = [
        [
            (side, [pair[i] / m.batch for pair in pairs])
            for i, side in ((1, "dense"), (0, "shipped"))
        ]
        for m, pairs in zip(found.measurements, rounds, strict=True)
    ]
    most = max(quartiles(times)[1] for pair in each for _, times in pair)
    for index, (m, pair) in enumerate(zip(found.measurements, each, strict=True)):
        top = 30 + index * row
        words = f"batch {m.batch}, {m.threads} thread{'s' if m.threads > 1 else ''}"
        parts.append(svg.text("mark", (left - 8, top + 20), "end", words))
        for place, (side, times) in enumerate(pair):
            parts += _bar(side, times, (left, top + 16 * place), (width - left - 120) / most)
    height = 30 + row * len(rounds) + 10
    if found.layers and found.peaks:
        drawn = layer_roofline(*found.layers, found.peaks)
        parts.append(svg.moved((0, height), [drawn]))
        height += 320
    return svg.document(width, height, f"latency of {name}", STYLE, parts, "bench")


def _bar(side: str, times: Sequence[float], at: svg.Point, scale: float) -> Iterator[Markup]:
    """A bar from the left to the median, a line over the quartiles, the median's value."""
    (x, y), median, (first, third) = at, statistics.median(times), quartiles(times)
    ends = [(x, y), (x + median * scale, y), (x + median * scale, y + 12), (x, y + 12)]
    yield svg.path(side, ends, closed=True)
    yield svg.line("spread", (x + first * scale, y + 6), (x + third * scale, y + 6))
    yield svg.text(side, (x + third * scale + 6, y + 10), "start", f"{side} {median:.3g}")
