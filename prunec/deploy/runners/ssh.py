"""onnxruntime on another machine, reached by the OpenSSH client: ``ssh://user@board``."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from dataclasses import dataclass
from typing import ClassVar, Self

from prunec.deploy.devices import worker
from prunec.deploy.devices.channel import Channel, python_arguments
from prunec.deploy.devices.device import Device
from prunec.errors import PrunecError, RecipeError
from prunec.wording import shortened

_PLACE = re.compile(
    r"(?:([A-Za-z0-9_][\w.-]*)@)?([A-Za-z0-9_][\w.-]*|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?"
    r"(/|(?:/[\w.+-]+)+)?",
    re.ASCII,
)
_WRITE = (
    "Write ssh://user@host, with a port other than 22 (ssh://user@host:2222), and with the path "
    "of a Python that is not on the login's PATH (ssh://host/home/pi/venv/bin/python)."
)
_COMMAND = "PRUNEC_SSH"
"""Environment variable with a command in place of ``ssh``, options included: ``ssh -F FILE``."""


@dataclass(frozen=True)
class Ssh(Device):
    """Runner of ONNX files on a board with Python, numpy and onnxruntime:
    ssh://user@host[:port].
    """

    samples: ClassVar[int | None] = 512  # every image is sent over the network

    host: str = ""
    user: str = ""
    port: int = 0
    interpreter: str = "python3"

    @classmethod
    def at(cls, place: str) -> Self:
        """Return the runner of a host: ``pi@board``, ``pi@board:2222/opt/venv/bin/python``."""
        parts = _PLACE.fullmatch(place)
        port = int(parts[3] or 0) if parts else 0
        if not parts or port > 65535 or parts[3] == "0":
            raise RecipeError(f"ssh://{shortened(place)} does not name a host", remedy=_WRITE)
        interpreter = (parts[4] or "").rstrip("/") or cls.interpreter
        user, host = parts[1] or "", parts[2].strip("[]")
        return cls(host=host, user=user, port=port, interpreter=interpreter)

    @property
    def name(self) -> str:
        """Address as it is written: ``ssh://pi@board``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user, port = f"{self.user}@" if self.user else "", f":{self.port}" if self.port else ""
        return f"ssh://{user}{host}{port}"

    def _connect(self) -> Channel:
        if not self.host:
            raise RecipeError("ssh does not name a host", remedy=_WRITE)
        ssh = shlex.split(os.environ.get(_COMMAND, "ssh"))
        if shutil.which(ssh[0]) is None:
            raise PrunecError(
                f"there is no {ssh[0]} here", remedy="Install it: apt-get install openssh-client"
            )
        # Never ask for a password: the command may run unattended.
        options = ["BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=15",
                   "ServerAliveCountMax=4", "RequestTTY=no", "LogLevel=ERROR"]  # fmt: skip
        command = [*ssh, *(f"-o{option}" for option in options)]
        command += [f"-p{self.port}"] if self.port else []
        command += [f"-l{self.user}"] if self.user else []
        return Channel(
            # After -- a host cannot be taken for an option.
            [*command, "--", self.host, "exec", self.interpreter, *python_arguments(True)]
        )

    def _explained(self, error: PrunecError) -> PrunecError:
        login, reason = f"{self.user}@{self.host}" if self.user else self.host, error.message
        port = f" -p {self.port}" if self.port else ""
        into = f"ssh{port} {login}"
        if reason.startswith(worker.MISSING):
            package, python = reason.removeprefix(worker.MISSING).split(".")[0], self.interpreter
            return PrunecError(
                f"{self.name} has no {package}",
                remedy=f"Install it there: {into} {python} -m pip install numpy onnxruntime",
            )
        if self.interpreter in reason and "not found" in reason.lower().replace(
            "no such", "not found"
        ):
            return PrunecError(
                f"{self.name} has no {self.interpreter}",
                remedy=f"Install it there: {into} sudo apt-get install python3 python3-pip",
            )
        return PrunecError(
            f"{self.name} cannot be reached, or does not run Python: {reason}",
            remedy=f"Try by hand, without a password: {into} -o BatchMode=yes "
            f"{self.interpreter} -V",
        )
