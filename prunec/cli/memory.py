"""``prunec count --memory``: prints the peak activation memory of files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from prunec.cli.printing import print_parts, say
from prunec.errors import PrunecError

if TYPE_CHECKING:
    from prunec.cost.lifetimes import Peak
    from prunec.store.runs import RunFolder

_SHOWN = 3  # tensors named per file: they fit into one or two lines of 80 columns


def print_memory(subject: str, run: RunFolder | None, inputs: Sequence[str], as_json: bool) -> None:
    """Print the peak activation memory of a file, or of every file of a run's export.

    Args:
        subject: the file; ignored where ``run`` is given.
        run: the run.
        inputs: shapes of inputs that have dynamic sizes: ``x=1x3x224x224``.
        as_json: whether to print JSON.

    Raises:
        UsageError: a shape does not parse.
        PrunecError: ``subject`` is not a file: a network has no schedule of its tensors.
    """
    if run is None and not Path(subject).is_file():
        raise PrunecError(
            f"--memory needs a file or a run, and {subject} is neither",
            remedy="Export it first: prunec export RUN, or prunec compile NETWORK.",
        )
    from prunec.cost.onnx_sizes import parse_sizes
    from prunec.pipeline.counting import memory, memory_of

    peaks: Mapping[str, Peak | None] = (
        memory(run) if run else {subject: memory_of(Path(subject), parse_sizes(inputs))}
    )
    if as_json:
        typer.echo(json.dumps({k: v and asdict(v) for k, v in peaks.items()}, indent=2))
        return
    _print(run.name if run else subject, peaks)


def _print(title: str, peaks: Mapping[str, Peak | None]) -> None:
    from rich.text import Text

    from prunec.tables import table

    made = table(f"Peak activation memory of {title}", "file", "bytes", "at", numbers=["bytes"])
    for name, peak in peaks.items():
        if peak is None:
            made.add_row(Text(name), "—", "unknown for this form")
        else:
            made.add_row(Text(name), f"{peak.bytes:,}", Text(f"{peak.operator} {peak.operation}"))
    print_parts(made)
    for name, peak in peaks.items():
        if peak:
            held = ", ".join(f"{value} {size:,}" for value, size in peak.held[:_SHOWN])
            more = f" and {len(peak.held) - _SHOWN} more" if len(peak.held) > _SHOWN else ""
            say(f"Live there in {name}: {held}{more}")
    say(
        "For one sample, by lifetimes of tensors. No operator works in place; weights and kernel "
        "workspace are not counted."
    )
