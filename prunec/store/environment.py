"""What a result may depend on besides its recipe: versions and machine."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "numpy", "safetensors")


def environment() -> dict[str, Any]:
    """Return the versions and the machine of this process, for a run's record."""
    import torch  # here: the version alone must not cost the import

    devices = range(torch.cuda.device_count())
    return {
        "prunec": prunec_version(),
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "devices": [torch.cuda.get_device_name(index) for index in devices],
    }


def prunec_version() -> str:
    """Return the version of the installed prunec."""
    return _version("prunec") or "0"


@cache
def build() -> str:
    """Return what tells this build of prunec from others of its version: of its sources."""
    digest = hashlib.sha256()
    for name in ("prunec", "prunec.passes", "prunec.exporters"):
        spec = find_spec(name)
        for folder in spec.submodule_search_locations or () if spec else ():
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()
