"""Speed of each layer of native code: as a table, and as a record that the run's page shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from rich.console import RenderableType
from rich.text import Text

from prunec.deploy.native.peaks import Peaks
from prunec.deploy.native.speeds import COLUMNS, layer_speeds, others_line
from prunec.deploy.runner import LayerTime
from prunec.files import write_text_atomic
from prunec.page import write_report
from prunec.pipeline.measuring import Bench
from prunec.store.records import record_text
from prunec.store.runs import RunFolder
from prunec.tables import table


def layer_report(
    ours: Sequence[LayerTime],
    theirs: Sequence[LayerTime],
    peaks: Peaks,
    name: str = "shipped",
) -> Iterator[RenderableType]:
    """Yield a table of the layers that have weights, in order, and a line about the others.

    Args:
        ours: calls of the native code's kernels.
        theirs: nodes of the dense network in onnxruntime.
        peaks: of one thread of this machine.
        name: what to call the native code.
    """
    made = table(f"{name}: every layer with weights", *COLUMNS, numbers=COLUMNS[2:])
    for layer in layer_speeds(ours, theirs, peaks):
        made.add_row(*layer.cells)
    yield made
    yield Text(others_line(ours, theirs, peaks))


def record_layers(run: RunFolder, bench: Bench) -> str:
    """Store the layers' times beside a run's export, and show them on its page.

    Returns:
        Where the page is; empty if the layers of native code were not timed.

    Raises:
        RunError: a file cannot be written.
    """
    if not bench.layers or not bench.peaks:
        return ""
    shipped, dense = ([asdict(layer) for layer in own] for own in bench.layers)
    record = {
        "runner": bench.runner, "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "peaks": asdict(bench.peaks), "shipped": shipped, "dense": dense,
    }  # fmt: skip
    write_text_atomic(run.export.layers, record_text(record))
    return str(write_report(run))
