"""Aarch64 system with Python and onnxruntime in a folder, for qemu, set up from packages.

Debian or Ubuntu packages come through apt, wheels through pip; nothing is installed outside of the
folder. qemu needs two more things: a fake
``/proc/cpuinfo`` of an ARM processor, because some versions show the host's, on which the import of
onnxruntime fails; and a named processor, because emulating the largest one takes ten times as long.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prunec.deploy.devices import debian
from prunec.errors import PrunecError, RunError
from prunec.files import cache_folder, explained, folder_atomic, sha256_of

QEMU = ("qemu-aarch64-static", "qemu-aarch64")
_SCHEMA = 1
_RECORD = "setup.json"
_WHEELS = "opt/wheels"
_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6", "libgomp1")
_MIRRORS = {"debian": debian.DEBIAN, "ubuntu": "http://ports.ubuntu.com"}
_PLATFORMS = (
    "manylinux_2_28",
    "manylinux_2_27",
    "manylinux_2_26",
    "manylinux_2_17",
    "manylinux2014",
)
CPUINFO = """processor\t: 0
BogoMIPS\t: 100.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""
"""A Cortex-A72 (part 0xd08 of implementer 0x41, ARM), as qemu emulates below."""


def folder() -> Path:
    """Return the folder of the system, in the user's cache folder."""
    return cache_folder() / "qemu-aarch64"


def emulator() -> str:
    """Return the command of qemu.

    Raises:
        PrunecError: qemu is not installed.
    """
    path = next(filter(None, map(shutil.which, QEMU)), None)
    if path is None:
        raise PrunecError(
            "there is no qemu-aarch64-static here",
            remedy="Install it: apt-get install qemu-user-static",
        )
    return path


def record() -> dict[str, Any]:
    """Return the record of the setup: versions and digests of every package.

    Raises:
        PrunecError: there is no setup, or one by another version of prunec.
    """
    try:
        entries: dict[str, Any] = json.loads((folder() / _RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        entries = {}
    if entries.get("schema") != _SCHEMA or not (folder() / str(entries.get("python"))).exists():
        raise PrunecError(
            f"there is no aarch64 Python in {folder()}",
            remedy="Set it up: prunec runners setup qemu-aarch64",
        )
    return entries


def command() -> list[str]:
    """Return the command that starts the emulated Python.

    Raises:
        PrunecError: the setup or qemu is missing.
    """
    return _command(folder(), emulator(), str(record()["python"]))


def environment() -> dict[str, str]:
    """Return the environment of the emulated Python."""
    return _environment(folder())


def set_up(tell: Callable[[str], None]) -> None:
    """Download and unpack the system, try it, and put it in place of an earlier one.

    Args:
        tell: function that takes one line per step.

    Raises:
        PrunecError: a tool is missing, a package is unavailable, or the result does not run.
    """
    qemu = emulator()
    debian.require_tools()
    if find_spec("pip") is None:
        raise PrunecError(
            "there is no pip here", remedy=f"Install it: {sys.executable} -m ensurepip"
        )
    with folder_atomic(folder()) as place, tempfile.TemporaryDirectory() as fetched:
        debs = _debs(Path(fetched), tell)
        debian.unpack(debs, place)
        (place / "proc").mkdir(exist_ok=True)
        (place / "proc" / "cpuinfo").write_text(CPUINFO)
        python = _python(place)
        wheels = _wheels(Path(fetched), python.removeprefix("usr/bin/python"), tell)
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(place / _WHEELS)
        versions = _tried(place, qemu, python)
        with explained(place / _RECORD):
            packages = {path.name: sha256_of(path) for path in (*debs, *wheels)}
            entry = {
                "schema": _SCHEMA,
                "python": python,
                "qemu": versions[0],
                "versions": versions[1],
            }
            text = json.dumps({**entry, "packages": packages}, indent=1)
            (place / _RECORD).write_text(text, "utf-8")
    tell(
        f"{folder()}: {versions[0]}, Python and onnxruntime {versions[1]['onnxruntime']} of aarch64"
    )


def _debs(fetched: Path, tell: Callable[[str], None]) -> list[Path]:
    """Return the downloaded system packages, with all dependencies."""
    release = platform.freedesktop_os_release()
    system = next((name for name in _names(release) if name in _MIRRORS), "")
    codename = release.get("VERSION_CODENAME", "")
    if not system or not codename:
        raise PrunecError(
            f"{release.get('PRETTY_NAME', 'this system')} is neither Debian nor Ubuntu",
            remedy="Verify on a board: --runner ssh://user@board",
        )
    mirror = _MIRRORS[system]
    tell(f"Fetching arm64 packages of {codename} from {mirror}")
    return debian.download(_PACKAGES, mirror, codename, fetched)


def _names(release: dict[str, str]) -> list[str]:
    """Return the name of a system, and of the systems it derives from."""
    return [release.get("ID", ""), *release.get("ID_LIKE", "").split()]


def _wheels(fetched: Path, python: str, tell: Callable[[str], None]) -> list[Path]:
    """Return the wheels of onnxruntime, if possible in this machine's version, and dependencies."""
    from onnxruntime import __version__ as ours

    tell(f"Fetching onnxruntime {ours} and numpy for aarch64, Python {python}")
    tags = [f"--platform={name}_aarch64" for name in _PLATFORMS]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
           "--only-binary=:all:", f"--python-version={python}", "--implementation=cp",
           *tags, "--dest", str(fetched / "wheels")]  # fmt: skip
    pip += ["--no-deps", "numpy>=2", "packaging", "flatbuffers", "protobuf"]
    try:
        debian.run([*pip, f"onnxruntime=={ours}"])
    except RunError:
        debian.run([*pip, "onnxruntime"])
    return sorted((fetched / "wheels").glob("*.whl"))


def _python(place: Path) -> str:
    """Return the interpreter, relative to the folder."""
    interpreters = sorted((place / "usr/bin").glob("python3.*[0-9]"))
    if not interpreters:
        raise PrunecError("the packages hold no Python")
    return str(interpreters[-1].relative_to(place))


def _tried(place: Path, qemu: str, python: str) -> tuple[str, dict[str, str]]:
    """Return the versions of qemu and of the packages, as the system reports them."""
    version = debian.run([qemu, "--version"]).splitlines()[0].split(" version ")[-1].split()[0]
    program = "import json, numpy as n, onnxruntime as o"
    program = f"{program}; print(json.dumps([n.__version__, o.__version__]))"
    made = debian.run([*_command(place, qemu, python), "-c", program], _environment(place))
    numpy, onnxruntime = json.loads(made)
    return f"qemu {version}", {"numpy": numpy, "onnxruntime": onnxruntime}


def _command(place: Path, qemu: str, python: str) -> list[str]:
    # -s: no packages from the user's folder, which are this machine's.
    return [qemu, "-L", str(place), "-cpu", "cortex-a72", str(place / python), "-s"]


def _environment(place: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("TMPDIR", "HOME") if name in os.environ}
    return {**kept, "PYTHONPATH": str(place / _WHEELS), "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1"}
