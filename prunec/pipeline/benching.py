"""Latency of a shipped file beside the dense one."""

from __future__ import annotations

from rich.table import Table

from prunec.catalogue import runner_for
from prunec.errors import RunError
from prunec.store.runs import RunFolder
from prunec.store.states import state_of, unfinished
from prunec.tables import table


def bench(run: RunFolder) -> Table:
    """Latency of the shipped file against the dense network's, beside the ratio of their MACs.

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
    from prunec.cost.onnx_graph import count_onnx

    ours, theirs = count_onnx(shipped), count_onnx(dense)
    columns = ("batch", "dense", "shipped", "shipped / dense", "MACs: shipped / dense")
    made = table(f"{run.name}: onnxruntime, 1 thread", *columns, numbers=columns)
    runner = runner_for(shipped.suffix)
    opened, other = runner.open(shipped), runner.open(dense)
    for batch in (1, 32):
        latency = opened.time(other, batch=batch)
        made.add_row(
            str(batch),
            f"{latency.dense_ms:.3f} ms",
            f"{latency.shipped_ms:.3f} ms",
            f"{latency.ratio:.3f}",
            f"{ours.macs / theirs.macs:.3f}",
        )
    return made
