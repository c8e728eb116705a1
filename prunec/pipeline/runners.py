"""States of the runners: ready, not installed, or not set up."""

from __future__ import annotations

from collections.abc import Iterator

from prunec.catalogue import runner, runner_names
from prunec.errors import PrunecError

Row = tuple[str, tuple[str, ...], str]


def runner_states() -> Iterator[Row]:
    """Yield name, file suffixes and state, in words, of every runner."""
    for name in runner_names():
        try:
            kind = runner(name)
        except PrunecError as error:
            yield name, (), f"not installed. {error.remedy}"
            continue
        suffixes = tuple(sorted(kind.suffixes))
        try:
            identity = kind().identity
            yield name, suffixes, f"ready: {identity.version}, {identity.device}"
        except PrunecError as error:
            yield name, suffixes, f"{error.message}. {error.remedy}"
