"""Packages of Debian or Ubuntu for another processor, fetched without root and without installing.

apt gets lists, status and cache of its own, so that nothing outside of the folder changes.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from prunec.errors import PrunecError, RunError

DEBIAN = "http://deb.debian.org/debian"
"""Mirror of Debian, which has every processor."""


def require_tools() -> None:
    """Require the programs that fetch and unpack packages.

    Raises:
        PrunecError: apt or dpkg is missing.
    """
    for tool, package in (("apt-get", "apt"), ("dpkg-deb", "dpkg")):
        if shutil.which(tool) is None:
            raise PrunecError(
                f"there is no {tool} here: the packages are those of Debian or Ubuntu",
                remedy=f"Install it ({package}), or verify on a board: --runner ssh://user@board",
            )


def download(packages: Iterable[str], mirror: str, codename: str, into: Path) -> list[Path]:
    """Return the downloaded arm64 packages of a release, with all that they depend on.

    Args:
        packages: names of packages.
        mirror: address of the archive.
        codename: release, such as `trixie`.
        into: empty folder for lists and packages.

    Raises:
        RunError: apt cannot fetch them.
    """
    for name in ("lists/partial", "archives/partial"):
        (into / name).mkdir(parents=True)
    (into / "status").touch()
    (into / "sources.list").write_text(f"deb {mirror} {codename} main\n")
    # Lists, status and cache of its own, no user to sandbox and no locks: apt needs no root.
    options = {
        "Dir::State": into, "Dir::State::lists": into / "lists",
        "Dir::State::status": into / "status", "Dir::Cache": into, "Dir::Log": into,
        "Dir::Etc::sourcelist": into / "sources.list", "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null", "Dir::Etc::preferencesparts": "/dev/null",
        "APT::Architecture": "arm64", "APT::Architectures": "arm64", "APT::Sandbox::User": "",
        "Acquire::Languages": "none", "Debug::NoLocking": "true",
    }  # fmt: skip
    apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]
    run([*apt, "update"])
    run([*apt, "--yes", "--no-install-recommends", "--download-only", "install", *packages])
    return sorted((into / "archives").glob("*.deb"))


def unpack(debs: Iterable[Path], place: Path) -> None:
    """Unpack packages into a folder.

    Raises:
        RunError: a file is no package.
    """
    for deb in debs:
        run(["dpkg-deb", "--extract", str(deb), str(place)])


def run(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    """Run a command; return its output.

    Raises:
        RunError: the command failed; the message holds its last lines.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False,
            env=environment, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        raise RunError(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        last = "\n".join((done.stderr.strip() or "it printed nothing").splitlines()[-5:])
        raise RunError(
            f"{Path(command[0]).name} failed:\n{last}",
            remedy="Setup needs the network and about 300 MB of disk; repeat the command.",
        )
    return done.stdout
