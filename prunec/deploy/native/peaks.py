"""What this machine can at most, measured on one thread: the roof over what a layer reaches."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

from prunec.deploy.native.compiler import compiler
from prunec.errors import PrunecError


@dataclass(frozen=True)
class Peaks:
    """The most that one thread reaches.

    Attributes:
        gmacs: 1e9 multiply-adds of float32 a second, operands in registers.
        gbytes: 1e9 bytes a second, read from memory.
    """

    gmacs: float
    gbytes: float

    def roof(self, intensity: float) -> float:
        """Return the most GMAC/s of a layer that makes so many multiply-adds of a byte."""
        return min(self.gmacs, self.gbytes * intensity)


@cache
def measured_peaks() -> Peaks:
    """Measure this machine, with its compiler, for about a second.

    Raises:
        PrunecError: there is no compiler, or it fails.
    """
    source = files("prunec.deploy.native").joinpath("kernels", "peaks.c")
    with tempfile.TemporaryDirectory() as folder, as_file(source) as path:
        library = Path(folder) / "peaks.so"
        flags = ["-O3", "-std=c11", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC"]
        command = [compiler(), *flags, "-Wno-psabi", "-o", str(library), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PrunecError(f"the machine's peaks cannot be measured: {done.stderr.strip()}")
        loaded = ctypes.CDLL(str(library))
        measured = []
        for name in ("peak_gmacs", "peak_gbytes"):
            function = loaded[name]
            function.restype = ctypes.c_double
            measured.append(float(function()))
    return Peaks(*measured)
