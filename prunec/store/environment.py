"""Versions and machine: everything besides the recipe that a result may depend on."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from contextlib import suppress
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
        "install": install_line(),
        "commit": commit(Path.cwd()),
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
def install_line() -> str:
    """Return the command that installs this prunec again, from where it was installed."""
    version = prunec_version()
    source = _source()
    url, vcs = str(source.get("url", "")), source.get("vcs_info")
    if isinstance(vcs, dict):
        return f"pip install '{vcs.get('vcs')}+{url}@{vcs.get('commit_id')}'"
    if "archive_info" in source:
        return f"pip install {url.rpartition('/')[2]}"
    if "dir_info" in source:
        revision = commit(Path(url.removeprefix("file://")))
        if revision:
            changed = "; it had changes besides" if revision.endswith("+") else ""
            known = f"# in a checkout of prunec {version}, build {build()}{changed}"
            return f"git checkout {revision.rstrip('+')} && pip install .    {known}"
        return f"pip install .    # in the sources of prunec {version}, build {build()}"
    return f"pip install prunec=={version}    # or in a checkout: {install_tagged(version)}"


def install_tagged(version: str) -> str:
    """Return the command that installs a released version in a checkout: each release has a tag."""
    return f"git checkout v{version} && pip install ."


def _source() -> dict[str, Any]:
    """Return pip's record (PEP 610) of where prunec was installed from; empty for an index."""
    # A checkout in the current folder is a distribution too, without such a record.
    for distribution in metadata.distributions(name="prunec"):
        with suppress(OSError, ValueError):
            said = json.loads(distribution.read_text("direct_url.json") or "{}")
            if isinstance(said, dict) and said:
                return said
    return {}


@cache
def commit(folder: Path) -> str | None:
    """Return the git commit of a folder, with ``+`` for uncommitted changes; None without git."""
    with suppress(OSError, subprocess.SubprocessError):
        if revision := _git(folder, "rev-parse", "HEAD"):
            return revision + ("+" if _git(folder, "status", "--porcelain", "-uno") else "")
    return None


def _git(folder: Path, *arguments: str) -> str:
    asked = ["git", "-C", str(folder), *arguments]
    # seconds: git may wait for a network disk
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=10)
    return done.stdout.strip() if done.returncode == 0 else ""


@cache
def build() -> str:
    """Return the start of the sha256 over prunec's sources: it identifies a build of a version."""
    digest = hashlib.sha256()
    for name in ("prunec", "prunec.passes", "prunec.exporters"):
        spec = find_spec(name)
        for folder in spec.submodule_search_locations or () if spec else ():
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    # 48 bits: two builds never meet by chance, and the text fits a line.
    return digest.hexdigest()[:12]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match.group(1) if match else platform.processor() or platform.machine()
