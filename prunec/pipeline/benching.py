"""Tables and plot of ``prunec bench``: a shipped file and the dense one, or any two files."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from markupsafe import Markup
from rich.console import RenderableType
from rich.text import Text

from prunec.catalogue import exporter, runner_named
from prunec.charts import svg
from prunec.charts.roofline import HEIGHT
from prunec.deploy.exporter import Exact
from prunec.deploy.native.speeds import layer_roofline
from prunec.deploy.runner import LayerTime
from prunec.deploy.timing import quartiles
from prunec.errors import RunError
from prunec.pipeline.layer_report import layer_report
from prunec.pipeline.measuring import SIDES, Bench, Measurement
from prunec.store.runs import RunFolder
from prunec.store.states import state_of, unfinished
from prunec.tables import FittedTable, table
from prunec.wording import shortened

MOST_LAYERS = 15  # rows of a table, the slowest layers: two tables fit on a screen
STYLE = (
    "text{font:12px sans-serif}.paper{fill:#fff}.dense{fill:#9aa5b1}.shipped{fill:#2b6cb0}"
    ".spread{stroke:#222;stroke-width:1.5}.grid{stroke:#e4e7eb}.roof{fill:none;stroke:#222}"
    ".mark,.unit{font-size:11px;fill:#52606d}.spot{fill-opacity:.8}"
)


def exported_files(run: RunFolder, runner: str = "") -> tuple[Path, Path]:
    """Return the shipped and the dense file: ONNX, or the form that the runner opens.

    Raises:
        PrunecError: there is no such runner, or the run has no export that it opens.
    """
    shipped = run.export.shipped("onnx", ".onnx")
    dense = run.export.timed_beside("onnx", ".onnx")
    if not (shipped.is_file() and dense.is_file()):
        if state_of(run) in ("interrupted", "failed", "training"):
            raise unfinished(run)
        raise RunError(
            f"{run.path} has no export", remedy=f"Export first: prunec export {run.path}"
        )
    kinds = runner_named(runner).suffixes if runner else frozenset({".onnx"})
    if ".onnx" in kinds:
        return shipped, dense
    return _opened_by(run, runner, kinds, dense)


def _opened_by(
    run: RunFolder, runner: str, suffixes: frozenset[str], dense: Path
) -> tuple[Path, Path]:
    """Return the shipped file that a runner opens, and the dense one in the same form if there is
    one, or the shipped one if nothing was cut; raise `RunError` if the run ships none.
    """
    uncut = dense == run.export.shipped("onnx", ".onnx")
    for form in run.export.forms:
        for suffix in suffixes:
            shipped, twin = run.export.shipped(form, suffix), run.export.dense(form, suffix)
            if shipped.is_file():
                # A lossy form is not the dense network's; C code is timed beside onnxruntime.
                same = uncut and runner != "native" and issubclass(exporter(f"to-{form}"), Exact)
                return shipped, twin if twin.is_file() else shipped if same else dense
    flag = "c" if runner == "native" else runner
    raise RunError(
        f"{run.path} has no export that {runner} runs",
        remedy=f"Export it: prunec export {run.path} --{flag}",
    )


def bench_tables(name: str, bench: Bench) -> list[RenderableType]:
    """Return the measurements as tables and sentences."""
    ours, theirs = bench.names
    times = [f"{bench.names[side]}, ms" for side in _order(bench)]
    columns = ("batch", "threads", *times, "ratio", "at 99 %", "MACs")
    made = table(f"{name}: {bench.runner}", *columns, numbers=columns)
    for m in bench.measurements:
        made.add_row(*_row(m, bench))
    lines = [
        "Times are medians over rounds ± half the interquartile range. Ratio: median of each "
        f"round's {ours} / {theirs}, with its confidence interval (--json has the rounds). MACs: "
        f"{ours} / {theirs}."
    ]
    lines += list(_speeds(bench))
    parts: list[RenderableType] = [made, *(Text(line) for line in lines)]
    if bench.layers and bench.peaks:
        parts += layer_report(*bench.layers, bench.peaks, ours)
    elif bench.layers:
        parts += [_layers(side, own) for side, own in zip(bench.names, bench.layers, strict=True)]
    return parts


def _order(bench: Bench) -> tuple[int, int]:
    """Return the sides in the order of columns and bars: the dense network is the reference of a
    run; other files keep their order.
    """
    return (1, 0) if bench.names == SIDES else (0, 1)


def _row(m: Measurement, bench: Bench) -> tuple[str, ...]:
    latency = m.latency
    ours, theirs = bench.macs
    ratio = f"{latency.ratio:.3f}" if latency.apart else "no difference"
    interval = f"{latency.least:.3f}–{latency.most:.3f}"
    sides = [_spread([pair[side] for pair in latency.rounds]) for side in _order(bench)]
    known = ours is not None and theirs
    return (str(m.batch), str(m.threads), *sides, ratio, interval,
            f"{(ours or 0) / (theirs or 1):.3f}" if known else "?")  # fmt: skip


def _spread(times: Sequence[float]) -> str:
    first, third = quartiles(times)
    return f"{statistics.median(times):.3g} ± {(third - first) / 2:.1g}"


def _speeds(bench: Bench) -> Iterator[str]:
    """Yield sentences on the throughput of the fastest setting and on resident memory."""
    sides = [m.to_dict(bench.macs) for m in bench.measurements]
    for side, name in zip(SIDES, bench.names, strict=True):
        # Throughput is a property of the file at its best setting, so each side has its own.
        best = max(sides, key=lambda m: m[side]["samples_per_second"])
        speed = best[side]["macs_per_second"]
        macs = f", {speed / 1e9:.3g} GMAC/s" if speed else ""
        yield (
            f"{name}: at most {best[side]['samples_per_second']:,.0f} samples/s (batch "
            f"{best['batch']}, {best['threads']} thread{'s' if best['threads'] > 1 else ''}){macs}"
        )
    if bench.memory:
        ours, theirs = bench.memory
        yield (
            f"Resident memory above that of the runtime alone: {bench.names[0]} "
            f"{ours.loaded / 1e6:.1f} MB loaded, {ours.peak / 1e6:.1f} MB peak; {bench.names[1]} "
            f"{theirs.loaded / 1e6:.1f} MB loaded, {theirs.peak / 1e6:.1f} MB peak"
        )


def _layers(side: str, layers: Sequence[LayerTime]) -> FittedTable:
    numbers = ("ms", "share")
    # 1: a file whose layers take no measurable time has shares of zero.
    whole = sum(layer.milliseconds for layer in layers) or 1.0
    made = table(f"{side}: the slowest of {len(layers)} layers", "layer", "operator", *numbers,
                 numbers=numbers)  # fmt: skip
    for layer in sorted(layers, key=lambda x: -x.milliseconds)[:MOST_LAYERS]:
        share = f"{100 * layer.milliseconds / whole:.1f} %"
        made.add_row(layer.name, layer.operator, f"{layer.milliseconds:.4f}", share)
    return made


def bench_plot(name: str, bench: Bench) -> Markup:
    """Return a bar chart, as SVG, of both files' median times in every setting, with quartiles."""
    # px: room for `batch 32, 1 thread`, the page's usual width, two bars of 12 and their gaps
    left, width, row = 130.0, 640.0, 48.0
    rounds = [m.latency.rounds for m in bench.measurements]
    lines = f"{name}: ms per sample, {bench.runner}".replace(" beside ", "\nbeside ").splitlines()
    parts = [svg.text("title", (8, 16 + 16 * i), "start", line) for i, line in enumerate(lines)]
    under = 14 + 16 * len(lines)
    each = [
        [(side, [pair[side] / m.batch for pair in pairs]) for side in _order(bench)]
        for m, pairs in zip(bench.measurements, rounds, strict=True)
    ]
    names = [shortened(file, 30) for file in bench.names]
    # px: behind the longest bar stand its name and its time; a letter takes 7
    room = max(120, 50 + 7 * max(map(len, names)))
    most = max(quartiles(times)[1] for pair in each for _, times in pair)
    for index, (m, pair) in enumerate(zip(bench.measurements, each, strict=True)):
        top = under + index * row
        words = f"batch {m.batch}, {m.threads} thread{'s' if m.threads > 1 else ''}"
        parts.append(svg.text("mark", (left - 8, top + 20), "end", words))
        for place, (side, times) in enumerate(pair):
            at, named = (left, top + 16 * place), (SIDES[side], names[side])
            parts += _bar(named, times, at, (width - left - room) / most)
    height = under + row * len(rounds) + 10
    if bench.layers and bench.peaks:
        parts.append(svg.moved((0, height), layer_roofline(*bench.layers, bench.peaks)))
        height += HEIGHT
    return svg.document(width, height, f"latency of {name}", STYLE, parts, "bench")


def _bar(
    named: tuple[str, str], times: Sequence[float], at: svg.Point, scale: float
) -> Iterator[Markup]:
    """Yield a bar up to the median, a line between the quartiles, and the median as text.

    Args:
        named: its class in the style sheet, and the name beside it.
        times: times of the rounds, in ms.
        at: its upper left corner.
        scale: px of a ms.
    """
    kind, side = named
    (x, y), median, (first, third) = at, statistics.median(times), quartiles(times)
    ends = [(x, y), (x + median * scale, y), (x + median * scale, y + 12), (x, y + 12)]
    yield svg.path(kind, ends, closed=True)
    yield svg.line("spread", (x + first * scale, y + 6), (x + third * scale, y + 6))
    yield svg.text(kind, (x + third * scale + 6, y + 10), "start", f"{side} {median:.3g}")
