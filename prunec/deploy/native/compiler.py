"""The C compiler of this machine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from prunec.errors import PrunecError

HERE = ("-march=native", "-DPRUNEC_HERE")
"""For this processor alone: a fraction of the time to compile."""
EVERYWHERE = ("-s",)
"""For every processor of this kind, which chooses when it runs; without symbols, so that the bytes
do not depend on the folder."""
_FLAGS = ("-O2", "-std=c11", "-shared", "-fPIC")

_INSTALL = "Install one (Debian and Ubuntu: apt install gcc), or name it in CC."


def compiler() -> str:
    """Return the C compiler: that of ``CC``, or ``cc``.

    Raises:
        PrunecError: there is none.
    """
    named = os.environ.get("CC") or "cc"
    found = shutil.which(named)
    if found is None:
        raise PrunecError(f"no C compiler: {named} is not installed", remedy=_INSTALL)
    return found


def library_name(stem: str) -> str:
    """Return the name of a library that is built here to be loaded elsewhere."""
    return f"{stem}-{platform.system().lower()}-{platform.machine()}.so"


def build(path: Path, library: Path, flags: Sequence[str] = HERE) -> None:
    """Build a shared library of a compiled network.

    Args:
        path: its source.
        library: the file that is written.
        flags: of the compiler, besides those that every library needs.

    Raises:
        PrunecError: there is no compiler, or it refuses the source.
    """
    command = [compiler(), *_FLAGS, *flags, "-o", str(library), str(path), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr)
        raise PrunecError(f"{path} cannot be built: {first.strip()}", remedy="Export it again.")
