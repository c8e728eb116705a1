"""Resident memory of a file under its runner, measured in a separate process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from prunec.deploy.runner import Runner
from prunec.errors import PrunecError

# The runtime is imported before the first reading. Writing 5 to clear_refs resets VmHWM on Linux,
# so that the peak of the import does not count.
_SCRIPT = """
import importlib, json, sys
from pathlib import Path
def resident():
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return [1024 * int(lines[key].split()[0]) for key in ("VmRSS", "VmHWM")]
module, name, fields, path, batch, sizes = (json.loads(argument) for argument in sys.argv[1:])
kind = getattr(importlib.import_module(module), name)
for needed in kind.modules:
    importlib.import_module(needed)
runner = kind(**fields)
Path("/proc/self/clear_refs").write_text("5")
before = resident()[0]
file = runner.open(Path(path))
loaded = resident()[0]
inputs = file.noise(batch, sizes)
for _ in file.run([inputs] * 3):
    pass
print(json.dumps([loaded - before, resident()[1] - before]))
"""


@dataclass(frozen=True)
class Memory:
    """Resident bytes of a process in excess of one that only imported the runtime.

    Attributes:
        loaded: bytes after the file is loaded.
        peak: most bytes during loading and runs.
    """

    loaded: int
    peak: int


def memory_of(
    path: Path,
    runner: Runner,
    batch: int = 1,
    sizes: Mapping[str, Sequence[int]] | None = None,
) -> Memory:
    """Measure the resident memory of a file on Linux, for a runner on this machine.

    Args:
        path: path of the file.
        runner: runner on this machine's processor.
        batch: batch size, if the file leaves it open.
        sizes: name of an input → all its sizes, if the file leaves any open.

    Raises:
        PrunecError: the process failed, or the system does not report its memory.
    """
    kind = type(runner)
    given = (kind.__module__, kind.__name__, asdict(runner), str(path), batch, dict(sizes or {}))
    command = [sys.executable, "-c", _SCRIPT, *map(json.dumps, given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise PrunecError(f"the memory of {path} cannot be measured: {last}")
    return Memory(*json.loads(done.stdout.splitlines()[-1]))
