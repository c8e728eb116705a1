"""The metrics file of a run: one JSON object a line, one line an epoch, each chained to the last.

    dₙ = sha256 of line n and dₙ₋₁,   d₀ = what tells the run from others

A line carries its d, so that one that was changed, left out, moved or brought from another run does
not fit, and lines can be added while a training runs and survive its death. Of lines cut off at the
end only the last digest tells, which the run keeps when the training is over.
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
    """A line as it was found.

    Attributes:
        number: from 1.
        said: what it says, its digest left out; None where it is no JSON object.
        digest: what it carries; empty where it carries none.
        fits: whether it is as it was written, behind the line before it.
    """

    number: int
    said: dict[str, Any] | None
    digest: str
    fits: bool


class MetricsLog:
    """Writes the metrics of a run.

    Args:
        path: the file.
        run: what tells the run from others.
    """

    def __init__(self, path: Path, run: str) -> None:
        self.path, self._run = path, run
        self._last = last_digest(path, run)

    def append(self, metrics: Mapping[str, Any]) -> None:
        """Add one line.

        Raises:
            RunError: the system refused (disk full, read-only, no permission, …).
        """
        text, self._last = _chained(metrics, self._last)
        with explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)

    def rewrite(self, method: str, history: Sequence[Mapping[str, Any]]) -> list[int]:
        """Let ``history`` be all that ``method`` wrote: no epoch twice, none missing.

        Returns:
            The numbers of the lines of other methods that are not as they were written: they are
            left out.
        """
        found = list(read_metrics(self.path, self._run))
        others = [line for line in found if line.said and line.said.get("pass") != method]
        kept = [line.said for line in others if line.fits]
        self._last = self._run
        if found or history:
            lines = []
            for said in [*kept, *history]:
                text, self._last = _chained(said or {}, self._last)
                lines.append(text)
            write_text_atomic(self.path, "".join(lines))
        return [line.number for line in others if not line.fits]


def read_metrics(path: Path, run: str) -> Iterator[Line]:
    """Yield the lines of the file, none where it is missing; bytes that are no text spoil theirs.

    Raises:
        OSError: it cannot be read.
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
        before = digest


def last_digest(path: Path, run: str) -> str:
    """Return the digest of the last line; that of a file without lines is ``run``."""
    last = run
    for line in read_metrics(path, run):
        last = line.digest
    return last


def metrics_flaw(path: Path, run: str, kept: str) -> str:
    """Return why the file is not what the run wrote; empty where it is.

    Args:
        path: the file.
        run: what tells the run from others.
        kept: the last digest when a training pass was over, ``run`` where none is; lines may
            follow.
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
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
