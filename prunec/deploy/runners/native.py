"""Compiled networks in C, built by this machine's compiler and run in this process."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from prunec.deploy.native.compiler import compiler
from prunec.deploy.native.library import load
from prunec.deploy.runner import Identity, LoadedFile, Runner


@dataclass(frozen=True)
class Native(Runner):
    """Build a compiled network and run it, on one thread unless told otherwise."""

    suffixes: ClassVar[frozenset[str]] = frozenset({".c"})

    threads: int = 1

    @property
    def identity(self) -> Identity:
        """The compiler, and on how many threads."""
        told = subprocess.run(
            [compiler(), "-dumpfullversion"], capture_output=True, text=True, check=False
        )
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        name = Path(compiler()).resolve().name
        return Identity(f"C, {name}", told.stdout.strip(), f"{platform.machine()}, {threads}")

    def open(self, path: Path) -> LoadedFile:
        """Return a network, built."""
        return load(path, ("-fopenmp",) if self.threads > 1 else ())
