"""The memory that an ONNX file takes when it runs, measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from prunec.errors import PrunecError

_SCRIPT = """
import json, sys
import numpy as np
import onnxruntime as ort
def resident():
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return [1024 * int(lines[key].split()[0]) for key in ("VmRSS", "VmHWM")]
path, threads, sizes = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
before = resident()[0]
options = ort.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = threads, 4
session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
loaded = resident()[0]
feed = {i.name: np.zeros(shape, kind) for i, (shape, kind) in zip(session.get_inputs(), sizes)}
for _ in range(3):
    session.run(None, feed)
print(json.dumps([loaded - before, resident()[1] - before]))
"""


@dataclass(frozen=True)
class Memory:
    """Bytes that a process with onnxruntime takes more than before.

    Attributes:
        loaded: when the file is loaded.
        peak: at most, in loading and in runs.
    """

    loaded: int
    peak: int


def onnx_memory(path: Path, inputs: list[tuple[tuple[int, ...], str]], threads: int) -> Memory:
    """Measure the resident memory of a file on Linux.

    Args:
        path: the file.
        inputs: shape and type of each input.
        threads: within an operator.

    Raises:
        PrunecError: the process failed, or the system does not say.
    """
    command = [sys.executable, "-c", _SCRIPT, str(path), str(threads), json.dumps(inputs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or "no word").splitlines()[-1]
        raise PrunecError(f"the memory of {path} cannot be measured: {last}")
    return Memory(*json.loads(done.stdout))
