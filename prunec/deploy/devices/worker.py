"""Worker on a device: opens, runs and times files as requested through stdin.

It is sent as text and needs only numpy and onnxruntime. A message, in either direction, is a header
as JSON, preceded by its length in four bytes; ``parts`` of the header are the lengths of the parts
that follow, each an array in numpy's format or the bytes of a file. Received files lie in a folder
of their own, which is deleted at the end, or when the connection ends.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import platform
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path, PurePosixPath
from typing import IO, Any

READY = b"prunec: ready\n"
MISSING = "missing package: "


class Worker:
    """Open files and the requests on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sessions: dict[str, Any] = {}
        self.given: dict[str, dict[str, Any]] = {}

    def do_hello(self, header: dict[str, Any], parts: list[bytes]) -> tuple[dict[str, Any], Any]:
        """Return versions and hardware."""
        names = ("numpy", "onnxruntime")
        versions = {name: importlib.metadata.version(name) for name in names}
        hardware = {
            "machine": platform.machine(),
            "model": _model(),
            "python": platform.python_version(),
            "system": platform.platform(),
        }
        return {**hardware, "versions": versions}, []

    def do_put(self, header: dict[str, Any], parts: list[bytes]) -> tuple[dict[str, Any], Any]:
        """Write files; their names must stay within the folder."""
        for name, data in zip(header["names"], parts, strict=True):
            place = PurePosixPath(name)
            if place.is_absolute() or ".." in place.parts:
                raise ValueError(f"{name} lies outside the folder")
            path = self.folder / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return {}, []

    def do_open(self, header: dict[str, Any], parts: list[bytes]) -> tuple[dict[str, Any], Any]:
        """Load a file; return its inputs."""
        session = self.sessions[header["name"]] = self._session(header)
        inputs = session.get_inputs()
        return {"inputs": [[entry.name, entry.type, entry.shape] for entry in inputs]}, []

    def do_close(self, header: dict[str, Any], parts: list[bytes]) -> tuple[dict[str, Any], Any]:
        """Close and delete a file."""
        self.sessions.pop(header["name"], None)
        self.given.pop(header["name"], None)
        (self.folder / header["name"]).unlink(missing_ok=True)
        return {}, []

    def do_run(self, header: dict[str, Any], parts: list[bytes]) -> tuple[dict[str, Any], Any]:
        """Run a file once."""
        import numpy as np

        session = self.sessions[header["name"]]
        made = session.run(None, _fed(session, parts))
        return {}, [np.asarray(values) for values in made]

    def do_give(self, header: dict[str, Any], parts: list[bytes]) -> tuple[dict[str, Any], Any]:
        """Store the inputs for timing a file."""
        self.given[header["name"]] = _fed(self.sessions[header["name"]], parts)
        return {}, []

    def do_time(self, header: dict[str, Any], parts: list[bytes]) -> tuple[dict[str, Any], Any]:
        """Return the seconds of each run."""
        session, feed = self.sessions[header["name"]], self.given[header["name"]]
        seconds = []
        for _ in range(header["runs"]):
            begun = time.perf_counter()
            session.run(None, feed)
            seconds.append(time.perf_counter() - begun)
        return {"seconds": seconds}, []

    def do_profile(self, header: dict[str, Any], parts: list[bytes]) -> tuple[dict[str, Any], Any]:
        """Return onnxruntime's profile of some runs."""
        session = self._session(header, self.folder / "profile")
        feed = _fed(session, parts)
        for _ in range(header["runs"]):
            session.run(None, feed)
        path = Path(session.end_profiling())
        events = json.loads(path.read_text("utf-8"))
        path.unlink()
        return {"events": events}, []

    def do_check(self, header: dict[str, Any], parts: list[bytes]) -> tuple[dict[str, Any], Any]:
        """Run check.py of a received bundle; return its output."""
        command = [
            *(header["python"] or [sys.executable]),
            str(self.folder / header["folder"] / "check.py"),
            "--json",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return {"code": done.returncode, "out": done.stdout, "err": done.stderr[-2000:]}, []

    def _session(self, header: dict[str, Any], profile: Path | None = None) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = header["threads"]
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Waiting threads that spin occupy the core that the next step needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if profile:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
        path = str(self.folder / header["name"])
        return onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])


def _fed(session: Any, parts: list[bytes]) -> dict[str, Any]:
    import numpy as np

    values = [np.load(io.BytesIO(part), allow_pickle=False) for part in parts]
    return dict(zip([entry.name for entry in session.get_inputs()], values, strict=True))


def _model() -> str:
    """Return the board's name, if the system has one."""
    try:
        return Path("/proc/device-tree/model").read_text("utf-8").strip("\0\n ")
    except (OSError, UnicodeDecodeError):
        return ""


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], list[bytes]] | None:
    """Return header and parts of a message; None at the end."""
    length = stream.read(4)
    if len(length) < 4:
        return None
    header: dict[str, Any] = json.loads(_whole(stream, struct.unpack(">I", length)[0]))
    return header, [_whole(stream, size) for size in header.get("parts", [])]


def write_message(stream: IO[bytes], header: dict[str, Any], parts: list[bytes]) -> None:
    """Write a message."""
    text = json.dumps({**header, "parts": [len(part) for part in parts]}).encode()
    stream.write(struct.pack(">I", len(text)) + text)
    for part in parts:
        stream.write(part)
    stream.flush()


def _whole(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def as_bytes(array: Any) -> bytes:
    """Return an array in numpy's file format."""
    import numpy as np

    made = io.BytesIO()
    np.save(made, array, allow_pickle=False)
    return made.getvalue()


def answered(worker: Worker, header: dict[str, Any], parts: list[bytes]) -> tuple[Any, Any]:
    """Return the answer to a message: header and parts."""
    try:
        answer, arrays = getattr(worker, f"do_{header['do']}")(header, parts)
        return answer, [as_bytes(array) for array in arrays]
    except (ModuleNotFoundError, importlib.metadata.PackageNotFoundError) as error:
        return {"error": f"{MISSING}{error.name}"}, []
    except Exception as error:  # runtimes raise errors of any type
        return {"error": f"{str(error) or type(error).__name__}"[:2000]}, []


def main() -> None:
    """Answer messages until the input ends."""
    given, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keep output of libraries out of the answers
    # An exit runs `finally`, which deletes the folder; a signal by itself does not.
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="prunec-"))
    os.environ["TMPDIR"] = str(folder)  # temporary files of runtimes go with the folder
    try:
        worker = Worker(folder)
        answers.write(READY)
        answers.flush()
        while (message := read_message(given)) is not None:
            write_message(answers, *answered(worker, *message))
    except (EOFError, BrokenPipeError):
        pass
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
