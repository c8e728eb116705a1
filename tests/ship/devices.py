"""Devices for tests: a process beside this one, and a real sshd on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

import pytest

from prunec.deploy.devices.channel import Channel, python_arguments
from prunec.deploy.devices.device import Device
from prunec.errors import PrunecError

SSHD = "/usr/sbin/sshd"


@dataclass(frozen=True)
class Beside(Device):
    """A worker in another process of this machine, started as `command` says."""

    command: tuple[str, ...] = (sys.executable,)
    temporary: str = ""

    @property
    def name(self) -> str:
        return "beside"

    def _connect(self) -> Channel:
        environment = {**os.environ, **({"TMPDIR": self.temporary} if self.temporary else {})}
        return Channel([*self.command, *python_arguments(quoted=False)], environment)

    def _explained(self, error: PrunecError) -> PrunecError:
        return PrunecError(f"beside: {error.message}", remedy="Mend it.")


@contextmanager
def sshd(folder: Path) -> Iterator[str]:
    """Start an OpenSSH server with keys of its own; yield ``ssh://user@127.0.0.1:port``.

    The client finds the keys through ``PRUNEC_SSH``; nothing of the user's is read or written.
    """
    tools = [shutil.which(name) for name in (SSHD, "ssh", "ssh-keygen")]
    if not all(tools):
        pytest.skip("no OpenSSH server here: apt-get install openssh-server")
    for name in ("host", "key"):
        _quiet(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)])
    port = _free_port()
    lines = [
        f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/host", "UsePAM no",
        f"AuthorizedKeysFile {folder}/key.pub", "StrictModes no", "PasswordAuthentication no",
        "KbdInteractiveAuthentication no", f"PidFile {folder}/pid",
    ]  # fmt: skip
    (folder / "sshd_config").write_text("\n".join(lines))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    known = f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}"
    (folder / "known").write_text(known)
    options = f"-F none -i {folder}/key -o UserKnownHostsFile={folder}/known"
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")],
                              stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        _await(port)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PRUNEC_SSH", f"ssh {options} -o IdentitiesOnly=yes")
            yield f"ssh://{getuser()}@127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


def _quiet(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _await(port: int) -> None:
    for _ in range(100):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail("sshd does not answer")
