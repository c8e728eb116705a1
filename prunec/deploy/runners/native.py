"""Compiled networks in C, built with this machine's compiler and run in this process."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from prunec.deploy.native.compiler import compiler
from prunec.deploy.native.library import load_with_threads
from prunec.deploy.runner import Identity, LoadedFile, Runner


@dataclass(frozen=True)
class Native(Runner):
    """Runner that builds a compiled network and runs it, by default on one thread."""

    suffixes: ClassVar[frozenset[str]] = frozenset({".c"})

    threads: int = 1

    @property
    def identity(self) -> Identity:
        """Compiler and threads."""
        output = subprocess.run(
            [compiler(), "-dumpfullversion"], capture_output=True, text=True, check=False
        )
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        # cc is usually a link: its target names the compiler.
        name = Path(compiler()).resolve().name
        return Identity(f"C, {name}", output.stdout.strip(), f"{platform.machine()}, {threads}")

    def open(self, path: Path) -> LoadedFile:
        """Return a built network."""
        return load_with_threads(path, self.threads)
