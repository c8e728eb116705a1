"""Connection to a worker process on a device that opens, runs and times files."""

from __future__ import annotations

import atexit
import io
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from prunec.deploy.devices import worker
from prunec.errors import PrunecError

_SOURCE = Path(worker.__file__).read_bytes()
_FIRST = 2**16
"""Most bytes that a login may print before the worker's first line."""
# The worker follows on stdin, so that nothing need be installed there.
BOOT = (
    "import sys; sys.version_info >= (3, 10) or sys.exit('Python 3.10 or later is needed'); "
    "source = sys.stdin.buffer.read({size}); "
    "exec(compile(source, 'worker.py', 'exec'), dict(__name__='__main__'))"
)


class Lost(PrunecError):
    """The worker process ended, or did not start.

    Attributes:
        stderr: output of the process on stderr.
    """

    def __init__(self, message: str, stderr: str) -> None:
        super().__init__(message)
        self.stderr = stderr


@dataclass
class Channel:
    """Running worker.

    Args:
        command: command that runs the worker, Python's arguments included.
        environment: environment of the process; None for this process's.
    """

    command: Sequence[str]
    environment: Mapping[str, str] | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _errors: BinaryIO = field(default_factory=tempfile.TemporaryFile, repr=False)

    def ask(
        self, what: str, parts: Sequence[bytes] = (), **header: Any
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Return the worker's answer.

        Raises:
            Lost: the worker process ended.
            PrunecError: the worker reports an error.
        """
        process = self._running()
        assert process.stdin
        assert process.stdout
        try:
            worker.write_message(process.stdin, {**header, "do": what}, list(parts))
            message = worker.read_message(process.stdout)
        except (OSError, EOFError, ValueError):
            message = None
        if message is None:
            raise self._lost()
        answer, received = message
        if "error" in answer:
            raise PrunecError(str(answer["error"]))
        return answer, received

    def run(self, name: str, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the outputs of an open file."""
        _, parts = self.ask("run", [worker.as_bytes(x) for x in inputs], name=name)
        return [np.load(io.BytesIO(part), allow_pickle=False) for part in parts]

    def close(self) -> None:
        """End the worker, which deletes the files sent to it."""
        process, self._process = self._process, None
        if process is None:
            return
        # The end of its input ends the worker, which then deletes its files.
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):
                if stream:
                    stream.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._start()
        assert self._process
        return self._process

    def _start(self) -> None:
        self._errors.seek(0)
        self._errors.truncate()
        try:
            self._process = subprocess.Popen(
                list(self.command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # A file: nobody reads a pipe while the worker runs, and a full one would stop it.
                stderr=self._errors,
                env=dict(self.environment) if self.environment is not None else None,
            )
        except OSError as error:
            raise Lost(f"{self.command[0]} cannot be run: {error.strerror}", "") from error
        atexit.register(self.close)
        assert self._process.stdin
        try:
            self._process.stdin.write(_SOURCE)
            self._process.stdin.flush()
        except OSError:
            raise self._lost() from None
        self._await_ready()

    def _await_ready(self) -> None:
        assert self._process
        assert self._process.stdout
        seen = 0
        while seen < _FIRST:
            line = self._process.stdout.readline(_FIRST)
            if line.endswith(worker.READY):
                return
            seen += len(line)
            if not line:
                break
        raise self._lost()

    def _lost(self) -> Lost:
        self.close()
        self._errors.seek(0)
        stderr = self._errors.read()[-2000:].decode("utf-8", "replace").strip()
        return Lost(stderr.splitlines()[-1] if stderr else "it ended without a message", stderr)


def python_arguments(quoted: bool) -> list[str]:
    """Return the arguments of Python that run the worker, read from its stdin.

    Args:
        quoted: whether to quote the program for a shell.
    """
    program = BOOT.format(size=len(_SOURCE))
    return ["-c", f'"{program}"' if quoted else program]
