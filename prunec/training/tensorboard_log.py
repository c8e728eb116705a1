"""TensorBoard logs: the metrics of every epoch as scalars and histograms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunec.errors import PrunecError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Board:
    """Writer of metrics for TensorBoard: ``tensorboard --logdir FOLDER``.

    Args:
        folder: folder of the event files, created with the first line.

    Raises:
        PrunecError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self._writer = _writer(folder)

    def add(self, metrics: Mapping[str, Any], step: int) -> None:
        """Write the metrics of one epoch and flush, so that a killed training shows what it did.

        Args:
            metrics: metrics as in metrics.jsonl: numbers; under ``layers`` quantity → layer →
                number; under ``histograms`` quantity → ``edges`` (n + 1) and ``counts`` (n).
            step: position on the axis: the epoch, from 1.
        """
        of = f"{metrics['pass']}/" if "pass" in metrics else ""
        for name, value in _scalars(metrics):
            self._writer.add_scalar(f"{of}{name}", value, step)
        for name, histogram in metrics.get("histograms", {}).items():
            self._add_histogram(f"{of}{name}", histogram["edges"], histogram["counts"], step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _add_histogram(self, tag: str, edges: list[float], counts: list[int], step: int) -> None:
        # The values themselves are not kept: sums take each for the middle of its bin.
        middles = [(a + b) / 2 for a, b in pairwise(edges)]
        weighted = list(zip(counts, middles, strict=True))
        self._writer.add_histogram_raw(
            tag,
            min=edges[0],
            max=edges[-1],
            num=sum(counts),
            sum=sum(n * x for n, x in weighted),
            sum_squares=sum(n * x * x for n, x in weighted),
            bucket_limits=edges[1:],
            bucket_counts=counts,
            global_step=step,
        )


def _scalars(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield every number, those of layers as ``quantity/layer``; the epoch is the axis."""
    for name, value in metrics.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "epoch":
            yield name, value
    for quantity, values in metrics.get("layers", {}).items():
        yield from ((f"{quantity}/{layer}", value) for layer, value in values.items())


def _writer(folder: Path) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise PrunecError(
            "TensorBoard logs are requested, but tensorboard is not installed",
            remedy="Install it: pip install 'prunec[tensorboard]'",
        ) from error
    return SummaryWriter(str(folder))
