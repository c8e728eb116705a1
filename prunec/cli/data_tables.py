"""Tables for people: what a data set holds, how fast it is read, what of it is damaged."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from prunec.tables import table
from prunec.wording import some_of

if TYPE_CHECKING:
    from prunec.batches.data_findings import DataFindings, Finding, SplitFindings
    from prunec.datasets.sequences import Standard

SHOWN = 20  # findings that a table lists


def data_tables(found: DataFindings) -> tuple[RenderableType, ...]:
    """Return what a person reads of a check: contents, speed, problems, doubts, the verdict."""
    parts: list[RenderableType] = []
    if found.splits:
        parts += [_contents(found), _speed(found)]
        parts += [_kinds(found)] if any(split.kinds for split in found.splits) else []
        parts += [_empty(found, split) for split in found.splits if 0 in split.per_class]
    if found.left_out:
        parts.append(_left_out(found))
    if found.standard:
        parts.append(_standard(found.standard))
    if found.problems:
        parts.append(_findings("Cannot be trained on", found.problems))
    if found.doubts:
        parts.append(_findings("Decoded, but the decoder complains", found.doubts))
    return (*parts, _verdict(found))


def _contents(found: DataFindings) -> Table:
    where = f" in {found.root}" if found.root else ""
    numbers = ["images", "classes", "fewest", "median", "most", "empty"]
    made = table(
        f"{found.data}{where}", "split", *numbers, "sizes, H×W", "to the network", numbers=numbers
    )
    for split in found.splits:
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
    made.caption = "fewest, median, most: images of a class. Sizes: smallest, middle, largest."
    return made


def _speed(found: DataFindings) -> Table:
    readers = f"{found.workers} worker{'s' * (found.workers > 1)}" if found.workers else "in memory"
    numbers = ["seconds", "decoded/s", "decoded and transformed/s"]
    made = table(f"Images a second, {readers}", "split", *numbers, numbers=numbers)
    for split in found.splits:
        decoded = split.decoded_a_second
        made.add_row(
            split.name,
            f"{split.seconds:,.1f}",
            "—" if decoded is None else f"{decoded:,.0f}",
            f"{split.prepared_a_second:,.0f}",
        )
    return made


def _kinds(found: DataFindings) -> Table:
    """What files the images are, and what is done or left out to read them as RGB."""
    names = [split.name for split in found.splits]
    made = table("Kinds of files", "kind", *names, numbers=names)
    kinds = {kind: None for split in found.splits for kind in split.kinds}
    for kind in list(kinds)[:SHOWN]:
        made.add_row(Text(kind), *(f"{split.kinds.get(kind, 0):,}" for split in found.splits))
    if len(kinds) > SHOWN:
        made.caption = f"and {len(kinds) - SHOWN:,} more: --json lists all"
    return made


def _left_out(found: DataFindings) -> Text:
    files = some_of(f"{many:,} {kind}" for kind, many in found.left_out.items())
    return Text(f"Left out, as no images: {files}", style="yellow")


def _standard(standard: Standard) -> Text:
    """What whoever feeds the shipped network must take out, too."""
    mean, std = (", ".join(f"{x:.6g}" for x in row) for row in (standard.mean, standard.std))
    return Text(f"Features are standardised. Their means: {mean}; deviations: {std}")


def _empty(found: DataFindings, split: SplitFindings) -> Text:
    pairs = zip(found.labels, split.per_class, strict=True)
    names = some_of(label for label, count in pairs if not count)
    return Text(f"{split.name}: classes without a readable image: {names}", style="yellow")


def _findings(title: str, findings: Sequence[Finding]) -> Table:
    made = table(title, "split", "image", "reason")
    for finding in findings[:SHOWN]:
        made.add_row(finding.split or "—", Text(finding.image or "—"), Text(finding.reason))
    if len(findings) > SHOWN:
        made.caption = f"and {len(findings) - SHOWN:,} more: --json lists all"
    return made


def _verdict(found: DataFindings) -> Text:
    images = sum(split.images for split in found.splits)
    if found.passed:
        return Text(f"All {images:,} images can be trained on.", style="green")
    many = len(found.problems)
    return Text(f"{many:,} problem{'s' * (many > 1)} in {images:,} images.", style="red")


def _sizes(split: SplitFindings) -> str:
    if len(set(split.sizes)) == 1:
        return _times(split.sizes[0])
    return ", ".join(map(_times, split.sizes)) or "—"


def _times(sizes: Sequence[int]) -> str:
    return "×".join(map(str, sizes))
