"""onnxruntime of another machine, reached by OpenSSH's client: ``ssh://user@board``."""

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
    "Write ssh://user@host, with a port where it is another than usual (ssh://user@host:2222), "
    "with the path of Python where it is none of the login's (ssh://host/home/pi/venv/bin/python)."
)
_COMMAND = "PRUNEC_SSH"
"""Names another command than ``ssh``, with its options: ``ssh -F FILE``."""


@dataclass(frozen=True)
class Ssh(Device):
    """Run ONNX files on a board that has Python, numpy and onnxruntime: ssh://user@host[:port]."""

    samples: ClassVar[int | None] = 512

    host: str = ""
    user: str = ""
    port: int = 0
    interpreter: str = "python3"

    @classmethod
    def at(cls, place: str) -> Self:
        """Return the runner of a host: ``pi@board``, ``pi@board:2222/opt/venv/bin/python``."""
        found = _PLACE.fullmatch(place)
        port = int(found[3] or 0) if found else 0
        if not found or port > 65535 or found[3] == "0":
            raise RecipeError(f"ssh://{shortened(place)} names no host", remedy=_WRITE)
        interpreter = (found[4] or "").rstrip("/") or cls.interpreter
        user, host = found[1] or "", found[2].strip("[]")
        return cls(host=host, user=user, port=port, interpreter=interpreter)

    @property
    def name(self) -> str:
        """As it is written: ``ssh://pi@board``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user, port = f"{self.user}@" if self.user else "", f":{self.port}" if self.port else ""
        return f"ssh://{user}{host}{port}"

    def _connect(self) -> Channel:
        if not self.host:
            raise RecipeError("ssh names no host", remedy=_WRITE)
        ssh = shlex.split(os.environ.get(_COMMAND, "ssh"))
        if shutil.which(ssh[0]) is None:
            raise PrunecError(
                f"there is no {ssh[0]} here", remedy="Install it: apt-get install openssh-client"
            )
        # Nobody is asked for a password: there may be nobody.
        options = ["BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=15",
                   "ServerAliveCountMax=4", "RequestTTY=no", "LogLevel=ERROR"]  # fmt: skip
        command = [*ssh, *(f"-o{option}" for option in options)]
        command += [f"-p{self.port}"] if self.port else []
        command += [f"-l{self.user}"] if self.user else []
        return Channel(
            [*command, "--", self.host, "exec", self.interpreter, *python_arguments(True)]
        )

    def _explained(self, error: PrunecError) -> PrunecError:
        login, said = f"{self.user}@{self.host}" if self.user else self.host, error.message
        port = f" -p {self.port}" if self.port else ""
        into = f"ssh{port} {login}"
        if said.startswith(worker.MISSING):
            package, python = said.removeprefix(worker.MISSING).split(".")[0], self.interpreter
            return PrunecError(
                f"{self.name} has no {package}",
                remedy=f"Install it there: {into} {python} -m pip install numpy onnxruntime",
            )
        if self.interpreter in said and "not found" in said.lower().replace("no such", "not found"):
            return PrunecError(
                f"{self.name} has no {self.interpreter}",
                remedy=f"Install it there: {into} sudo apt-get install python3 python3-pip",
            )
        return PrunecError(
            f"{self.name} cannot be reached, or does not run Python: {said}",
            remedy=f"Try by hand, without a password: {into} -o BatchMode=yes "
            f"{self.interpreter} -V",
        )
