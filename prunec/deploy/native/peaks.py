"""Peak arithmetic and memory rates of one thread, measured: the roofs of the roofline model."""

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
    """Peak rates of one thread.

    Attributes:
        gmacs: float32 multiply-adds with operands in registers, in GMAC/s.
        gbytes: reads from memory, in GB/s (1e9 bytes).
    """

    gmacs: float
    gbytes: float

    def roof(self, intensity: float) -> float:
        """Return the largest rate of a layer, in GMAC/s, by the roofline model.

        Williams, Waterman, Patterson: Roofline (CACM 2009).

        Args:
            intensity: multiply-adds per byte read or written.
        """
        return min(self.gmacs, self.gbytes * intensity)


@cache
def measured_peaks() -> Peaks:
    """Measure this machine, for about a second; compiled by its own compiler.

    Raises:
        PrunecError: there is no compiler, or it fails.
    """
    source = files("prunec.deploy.native").joinpath("kernels", "peaks.c")
    with tempfile.TemporaryDirectory() as folder, as_file(source) as path:
        library = Path(folder) / "peaks.so"
        # Under -std=c11 GCC joins no product and sum into one instruction unless asked.
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
