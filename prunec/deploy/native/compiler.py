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
"""Compiler flags for this processor only, which compile in a fraction of the time."""
EVERYWHERE = ("-s",)
"""Compiler flags for every processor of this architecture: kernels are chosen at run time. Without
symbols, as these contain the folder and would make the bytes depend on it."""
_FLAGS = ("-O2", "-std=c11", "-shared", "-fPIC")

_INSTALL = "Install one (Debian and Ubuntu: apt install gcc), or name it in CC."


def compiler() -> str:
    """Return the path of the C compiler: ``CC``, else ``cc``.

    Raises:
        PrunecError: there is no compiler.
    """
    named = os.environ.get("CC") or "cc"
    path = shutil.which(named)
    if path is None:
        raise PrunecError(f"no C compiler: {named} is not installed", remedy=_INSTALL)
    return path


def library_name(stem: str) -> str:
    """Return the file name of a library for other machines: with system and processor."""
    return f"{stem}-{platform.system().lower()}-{platform.machine()}.so"


def build(path: Path, library: Path, flags: Sequence[str] = HERE) -> None:
    """Compile a network into a shared library.

    Args:
        path: C source of the network.
        library: the file to write.
        flags: further compiler flags.

    Raises:
        PrunecError: there is no compiler, or it rejects the source.
    """
    command = [compiler(), *_FLAGS, *flags, "-o", str(library), str(path), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr)
        raise PrunecError(f"{path} cannot be built: {first.strip()}", remedy="Export it again.")
