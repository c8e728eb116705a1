"""An aarch64 Linux with Python and onnxruntime in a folder, for qemu: set up from packages.

Packages of Debian or Ubuntu come through apt with lists, status and cache of their own, wheels
through pip; nothing is installed outside of the folder. Two things that qemu needs besides: a
made-up ``/proc/cpuinfo`` of an ARM processor, since some versions show the host's, on which
onnxruntime ends at its import; and a named processor, since the largest that it can emulate takes
ten times as long.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prunec.errors import PrunecError, RunError
from prunec.files import cache_folder, explained, folder_atomic, sha256_of

QEMU = ("qemu-aarch64-static", "qemu-aarch64")
_SCHEMA = 1
_RECORD = "setup.json"
_WHEELS = "opt/wheels"
_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6", "libgomp1")
_MIRRORS = {"debian": "http://deb.debian.org/debian", "ubuntu": "http://ports.ubuntu.com"}
_PLATFORMS = (
    "manylinux_2_28",
    "manylinux_2_27",
    "manylinux_2_26",
    "manylinux_2_17",
    "manylinux2014",
)
_CPUINFO = """processor\t: 0
BogoMIPS\t: 100.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""


def folder() -> Path:
    """Return where it lies: in the user's cache folder."""
    return cache_folder() / "qemu-aarch64"


def emulator() -> str:
    """Return qemu's command.

    Raises:
        PrunecError: it is not installed.
    """
    found = next(filter(None, map(shutil.which, QEMU)), None)
    if found is None:
        raise PrunecError(
            "there is no qemu-aarch64-static here",
            remedy="Install it: apt-get install qemu-user-static",
        )
    return found


def record() -> dict[str, Any]:
    """Return what was set up: versions and digests of every package.

    Raises:
        PrunecError: nothing was, or by another version of prunec.
    """
    try:
        found: dict[str, Any] = json.loads((folder() / _RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        found = {}
    if found.get("schema") != _SCHEMA or not (folder() / str(found.get("python"))).exists():
        raise PrunecError(
            f"there is no aarch64 Python in {folder()}",
            remedy="Set it up: prunec runners setup qemu-aarch64",
        )
    return found


def command() -> list[str]:
    """Return the command that starts the emulated Python.

    Raises:
        PrunecError: something is missing.
    """
    return _command(folder(), emulator(), str(record()["python"]))


def environment() -> dict[str, str]:
    """Return the environment of the emulated Python."""
    return _environment(folder())


def set_up(tell: Callable[[str], None]) -> None:
    """Fetch and unpack all of it, try it, and put it in its place; what stood there is replaced.

    Args:
        tell: takes a line a step.

    Raises:
        PrunecError: a tool is missing, a package cannot be had, or the result does not run.
    """
    qemu = emulator()
    for tool, package in (("apt-get", "apt"), ("dpkg-deb", "dpkg")):
        if shutil.which(tool) is None:
            raise PrunecError(
                f"there is no {tool} here: the packages are those of Debian or Ubuntu",
                remedy=f"Install it ({package}), or verify on a board: --runner ssh://user@board",
            )
    if find_spec("pip") is None:
        raise PrunecError(
            "there is no pip here", remedy=f"Install it: {sys.executable} -m ensurepip"
        )
    with folder_atomic(folder()) as place, tempfile.TemporaryDirectory() as fetched:
        debs = _debs(Path(fetched), tell)
        for deb in debs:
            _run(["dpkg-deb", "--extract", str(deb), str(place)])
        (place / "proc").mkdir(exist_ok=True)
        (place / "proc" / "cpuinfo").write_text(_CPUINFO)
        python = _python(place)
        wheels = _wheels(Path(fetched), python.removeprefix("usr/bin/python"), tell)
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(place / _WHEELS)
        said = _tried(place, qemu, python)
        with explained(place / _RECORD):
            packages = {path.name: sha256_of(path) for path in (*debs, *wheels)}
            entry = {"schema": _SCHEMA, "python": python, "qemu": said[0], "versions": said[1]}
            text = json.dumps({**entry, "packages": packages}, indent=1)
            (place / _RECORD).write_text(text, "utf-8")
    tell(f"{folder()}: {said[0]}, Python and onnxruntime {said[1]['onnxruntime']} of aarch64")


def _debs(fetched: Path, tell: Callable[[str], None]) -> list[Path]:
    """The packages of the system, with all that they need."""
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
    for name in ("lists/partial", "archives/partial"):
        (fetched / name).mkdir(parents=True)
    (fetched / "status").touch()
    (fetched / "sources.list").write_text(f"deb {mirror} {codename} main\n")
    options = {
        "Dir::State": fetched, "Dir::State::lists": fetched / "lists",
        "Dir::State::status": fetched / "status", "Dir::Cache": fetched, "Dir::Log": fetched,
        "Dir::Etc::sourcelist": fetched / "sources.list", "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null", "Dir::Etc::preferencesparts": "/dev/null",
        "APT::Architecture": "arm64", "APT::Architectures": "arm64", "APT::Sandbox::User": "",
        "Acquire::Languages": "none", "Debug::NoLocking": "true",
    }  # fmt: skip
    apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]
    _run([*apt, "update"])
    _run([*apt, "--yes", "--no-install-recommends", "--download-only", "install", *_PACKAGES])
    return sorted((fetched / "archives").glob("*.deb"))


def _names(release: dict[str, str]) -> list[str]:
    """A system's name, and those of what it derives from."""
    return [release.get("ID", ""), *release.get("ID_LIKE", "").split()]


def _wheels(fetched: Path, python: str, tell: Callable[[str], None]) -> list[Path]:
    """Onnxruntime in this machine's version, where there is one for that Python, and its needs."""
    from onnxruntime import __version__ as ours  # also of a build for other processors

    tell(f"Fetching onnxruntime {ours} and numpy for aarch64, Python {python}")
    tags = [f"--platform={name}_aarch64" for name in _PLATFORMS]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
           "--only-binary=:all:", f"--python-version={python}", "--implementation=cp",
           *tags, "--dest", str(fetched / "wheels")]  # fmt: skip
    pip += ["--no-deps", "numpy>=2", "packaging", "flatbuffers", "protobuf"]
    try:
        _run([*pip, f"onnxruntime=={ours}"])
    except RunError:
        _run([*pip, "onnxruntime"])
    return sorted((fetched / "wheels").glob("*.whl"))


def _python(place: Path) -> str:
    """The interpreter, relative to the folder."""
    found = sorted((place / "usr/bin").glob("python3.*[0-9]"))
    if not found:
        raise PrunecError("the packages hold no Python")
    return str(found[-1].relative_to(place))


def _tried(place: Path, qemu: str, python: str) -> tuple[str, dict[str, str]]:
    """What it says of its versions: qemu's, and those of the packages."""
    said = _run([qemu, "--version"]).splitlines()[0].split(" version ")[-1].split()[0]
    program = "import json, numpy as n, onnxruntime as o"
    program = f"{program}; print(json.dumps([n.__version__, o.__version__]))"
    made = _run([*_command(place, qemu, python), "-c", program], _environment(place))
    numpy, onnxruntime = json.loads(made)
    return f"qemu {said}", {"numpy": numpy, "onnxruntime": onnxruntime}


def _command(place: Path, qemu: str, python: str) -> list[str]:
    return [qemu, "-L", str(place), "-cpu", "cortex-a72", str(place / python), "-s"]


def _environment(place: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("TMPDIR", "HOME") if name in os.environ}
    return {**kept, "PYTHONPATH": str(place / _WHEELS), "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1"}


def _run(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    """Run a command; return what it prints.

    Raises:
        RunError: it failed: with its last lines.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False,
            env=environment, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        raise RunError(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        last = "\n".join((done.stderr.strip() or "it said nothing").splitlines()[-5:])
        raise RunError(
            f"{Path(command[0]).name} failed:\n{last}",
            remedy="It needs the network and some 300 MB of disk; repeat the command.",
        )
    return done.stdout
