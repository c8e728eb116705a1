"""The runners that there are, and whether each is ready."""

from __future__ import annotations

from collections.abc import Iterator

from prunec.catalogue import runner, runner_names
from prunec.errors import PrunecError

Row = tuple[str, tuple[str, ...], str]


def runner_states() -> Iterator[Row]:
    """Yield the name, the suffixes of files and the state of every runner, in words."""
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
