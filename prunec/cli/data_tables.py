"""Tables of ``prunec data check``: contents of a data set, reading speed, damaged images."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from prunec.tables import table
from prunec.wording import percent, some_of

if TYPE_CHECKING:
    from prunec.batches.data_findings import DataFindings, Finding, SplitFindings
    from prunec.datasets.sequences import Standard
    from prunec.training.pace import Pace

SHOWN = 20  # rows of a table: one screen; --json lists all


def data_tables(check: DataFindings) -> tuple[RenderableType, ...]:
    """Return the tables of a check: contents, speed, problems, doubts, the verdict."""
    parts: list[RenderableType] = []
    if check.splits:
        parts += [_contents(check), _speed(check)]
        parts += [_kinds(check)] if any(split.kinds for split in check.splits) else []
        parts += [_empty(check, split) for split in check.splits if 0 in split.per_class]
    if check.left_out:
        parts.append(_left_out(check))
    if check.standard:
        parts.append(_standard(check.standard))
    if check.problems:
        parts.append(_findings("Cannot be trained on", check.problems))
    if check.doubts:
        parts.append(_findings("Decoded, with warnings of the decoder", check.doubts))
    return (*parts, _verdict(check))


def pace_table(pace: Pace) -> tuple[RenderableType, ...]:
    """Return images per second of batches and of steps, and which of them bounds the training."""
    numbers = ["data", "steps", "together"]
    made = table(f"Images per second on {pace.device}", "batch", *numbers, numbers=numbers)
    rates = (f"{rate:,.0f}" for rate in (pace.data, pace.steps, pace.together))
    made.add_row(str(pace.batch_size), *rates)
    made.caption = "Steps: plain training, without the work of a method."
    share = pace.together / pace.steps
    what = {
        "data": "Data bound the training: batches are slower than steps",
        "steps": "Steps bound the training: batches are faster than steps",
    }[pace.bound]
    return made, Text(f"{what} ({percent(share, 0)} of the steps' speed is reached).")


def _contents(check: DataFindings) -> Table:
    folder = f" in {check.root}" if check.root else ""
    numbers = ["images", "classes", "fewest", "median", "most", "empty"]
    made = table(
        f"{check.data}{folder}", "split", *numbers, "sizes, H×W", "to the network", numbers=numbers
    )
    for split in check.splits:
        counts = split.per_class
        made.add_row(
            split.name,
            f"{split.images:,}",
            f"{len(counts):,}",
            f"{min(counts):,}",
            f"{median(counts):,.0f}",
            f"{max(counts):,}",
            str(counts.count(0)),
            _sizes(split),
            ", ".join(map(_times, split.outputs[:3])),
        )
    made.caption = "fewest, median, most: images per class. Sizes: smallest, median, largest."
    return made


def _speed(check: DataFindings) -> Table:
    readers = f"{check.workers} worker{'s' * (check.workers > 1)}" if check.workers else "in memory"
    numbers = ["seconds", "decoded/s", "decoded and transformed/s"]
    made = table(f"Images per second, {readers}", "split", *numbers, numbers=numbers)
    for split in check.splits:
        decoded = split.decoded_a_second
        made.add_row(
            split.name,
            f"{split.seconds:,.1f}",
            "—" if decoded is None else f"{decoded:,.0f}",
            f"{split.prepared_a_second:,.0f}",
        )
    return made


def _kinds(check: DataFindings) -> Table:
    """Return the table of file formats, with what is converted or dropped to read them as RGB."""
    names = [split.name for split in check.splits]
    made = table("File formats", "format", *names, numbers=names)
    kinds = {kind: None for split in check.splits for kind in split.kinds}
    for kind in list(kinds)[:SHOWN]:
        made.add_row(Text(kind), *(f"{split.kinds.get(kind, 0):,}" for split in check.splits))
    if len(kinds) > SHOWN:
        made.caption = f"and {len(kinds) - SHOWN:,} more: --json lists all"
    return made


def _left_out(check: DataFindings) -> Text:
    files = some_of(f"{many:,} {kind}" for kind, many in check.left_out.items())
    return Text(f"Skipped, not images: {files}", style="yellow")


def _standard(standard: Standard) -> Text:
    """Return the mean and deviation that the shipped network's inputs must be standardised with."""
    mean, std = (", ".join(f"{x:.6g}" for x in row) for row in (standard.mean, standard.std))
    return Text(f"Features are standardised. Means: {mean}; deviations: {std}")


def _empty(check: DataFindings, split: SplitFindings) -> Text:
    pairs = zip(check.labels, split.per_class, strict=True)
    names = some_of(label for label, count in pairs if not count)
    return Text(f"{split.name}: classes without a readable image: {names}", style="yellow")


def _findings(title: str, findings: Sequence[Finding]) -> Table:
    made = table(title, "split", "image", "reason")
    for finding in findings[:SHOWN]:
        made.add_row(finding.split or "—", Text(finding.image or "—"), Text(finding.reason))
    if len(findings) > SHOWN:
        made.caption = f"and {len(findings) - SHOWN:,} more: --json lists all"
    return made


def _verdict(check: DataFindings) -> Text:
    images = sum(split.images for split in check.splits)
    if check.passed:
        return Text(f"All {images:,} images can be trained on.", style="green")
    many = len(check.problems)
    return Text(f"{many:,} problem{'s' * (many > 1)} in {images:,} images.", style="red")


def _sizes(split: SplitFindings) -> str:
    if len(set(split.sizes)) == 1:
        return _times(split.sizes[0])
    return ", ".join(map(_times, split.sizes)) or "—"


def _times(sizes: Sequence[int]) -> str:
    return "×".join(map(str, sizes))
