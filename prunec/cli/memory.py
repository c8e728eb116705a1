"""What ``prunec count --memory`` prints: where files hold most."""

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

_SHOWN = 3


def print_memory(subject: str, run: RunFolder | None, inputs: Sequence[str], as_json: bool) -> None:
    """Print the peak activation memory of a file, or of every file of a run's export.

    Args:
        subject: the file, where no run is meant.
        run: the run.
        inputs: sizes that an ONNX file leaves open: ``x=1x3x224x224``.
        as_json: whether JSON is printed.

    Raises:
        UsageError: sizes are not written so.
        PrunecError: a network is named: what it holds is known of a file.
    """
    if run is None and not Path(subject).is_file():
        raise PrunecError(
            f"--memory is of files: {subject} is none, and no run",
            remedy="Export it first: prunec export RUN, or prunec compile NETWORK.",
        )
    from prunec.cost.onnx_sizes import parse_sizes
    from prunec.pipeline.counting import memory, memory_of

    found: Mapping[str, Peak | None] = (
        memory(run) if run else {subject: memory_of(Path(subject), parse_sizes(inputs))}
    )
    if as_json:
        typer.echo(json.dumps({k: v and asdict(v) for k, v in found.items()}, indent=2))
        return
    _print(run.name if run else subject, found)


def _print(title: str, found: Mapping[str, Peak | None]) -> None:
    from rich.text import Text

    from prunec.tables import table

    made = table(f"Peak activation memory of {title}", "file", "bytes", "at", numbers=["bytes"])
    for name, peak in found.items():
        if peak is None:
            made.add_row(Text(name), "—", "it does not tell")
        else:
            made.add_row(Text(name), f"{peak.bytes:,}", Text(f"{peak.operator} {peak.operation}"))
    print_parts(made)
    for name, peak in found.items():
        if peak:
            held = ", ".join(f"{value} {size:,}" for value, size in peak.held[:_SHOWN])
            more = f" and {len(peak.held) - _SHOWN} more" if len(peak.held) > _SHOWN else ""
            say(f"{name} holds there: {held}{more}")
    say("Of one sample, by lifetimes: nothing in place, weights and space of kernels not counted.")
