"""Metrics file of a run: one JSON object per line and epoch, in a hash chain.

    dₙ = sha256(line n, dₙ₋₁),   d₀ = identity of the run

Every line carries its dₙ, so that a line that was changed, removed, moved or copied from another
run does not fit, and lines can be appended while a training runs. Lines cut off at the end are
detected by the last digest, which the run keeps when the training is over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunec.files import explained, write_text_atomic
from prunec.store.records import DIGEST, record_digest

_BEFORE = "after"


@dataclass(frozen=True)
class Line:
    """A line of the file.

    Attributes:
        number: line number, from 1.
        said: the line's object without its digest; None where it is not a JSON object.
        digest: the digest that it carries; empty for none.
        fits: whether the digest fits the line and the line before it.
    """

    number: int
    said: dict[str, Any] | None
    digest: str
    fits: bool


class MetricsLog:
    """Writer of a run's metrics.

    Args:
        path: the file.
        run: identity of the run.
    """

    def __init__(self, path: Path, run: str) -> None:
        self.path, self._run = path, run
        # A resumed run continues the chain.
        self._last = last_digest(path, run)

    def append(self, metrics: Mapping[str, Any]) -> None:
        """Add one line.

        Raises:
            RunError: the system refused (disk full, read-only, no permission, …).
        """
        text, self._last = _chained(metrics, self._last)
        with explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Appended in one write; a line that is cut off spoils only itself.
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)

    def rewrite(self, method: str, history: Sequence[Mapping[str, Any]]) -> list[int]:
        """Replace the lines of ``method`` by ``history``, so that no epoch is double or missing.

        Returns:
            The numbers of damaged lines of other methods, which are dropped.
        """
        before = list(read_metrics(self.path, self._run))
        others = [line for line in before if line.said and line.said.get("pass") != method]
        kept = [line.said for line in others if line.fits]
        self._last = self._run
        if before or history:
            lines = []
            for said in [*kept, *history]:
                text, self._last = _chained(said or {}, self._last)
                lines.append(text)
            write_text_atomic(self.path, "".join(lines))
        return [line.number for line in others if not line.fits]


def read_metrics(path: Path, run: str) -> Iterator[Line]:
    """Yield the lines of the file, none where it is missing.

    Bytes that are not UTF-8 spoil only their own line.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return
    before = run
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), 1):
        said = _object(line)
        digest = str((said or {}).pop(DIGEST, ""))
        fits = said is not None and digest == record_digest({**said, _BEFORE: before})
        yield Line(number, said, digest, fits)
        # A changed line spoils its own digest and at most the next line's, not the rest.
        before = digest


def last_digest(path: Path, run: str) -> str:
    """Return the digest of the last line; ``run`` for a file without lines."""
    last = run
    for line in read_metrics(path, run):
        last = line.digest
    return last


def metrics_flaw(path: Path, run: str, kept: str) -> str:
    """Return why the file is not the one that the run wrote; empty where it is.

    Args:
        path: the file.
        run: identity of the run.
        kept: last digest at the end of the last training pass, or ``run`` before the first; lines
            may follow it.
    """
    try:
        lines = list(read_metrics(path, run))
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}"
    wrong = [str(line.number) for line in lines if not line.fits]
    if not path.is_file() and kept != run:
        return f"{path} is missing"
    if wrong:
        return f"{path} was changed after it was written: line {', '.join(wrong[:5])}"
    if kept not in (run, *(line.digest for line in lines)):
        return f"{path} ends before the training ended: lines are missing"
    return ""


def _chained(metrics: Mapping[str, Any], before: str) -> tuple[str, str]:
    digest = record_digest({**metrics, _BEFORE: before})
    return json.dumps({**metrics, DIGEST: digest}) + "\n", digest


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
