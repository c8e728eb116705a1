"""Golden values: outputs of a network for its example, stored beside the shipped file.

A recipient can compare the file with them without the network's code, under any runtime, with NumPy
alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from prunec.deploy.checks.check import Check, failed
from prunec.deploy.exporter import Exact, Exporter
from prunec.deploy.runner import Runner
from prunec.deploy.signature import file_digest
from prunec.errors import PrunecError
from prunec.tensor_files import read_tensors, write_tensors

NAME = "golden values"
FILE = "golden.safetensors"
DIGEST = "golden_sha256"
TOLERANCE = 1e-4
"""Allowed difference from golden outputs, as a share of the largest value of an output."""


def write_golden(
    shipped: Path, exporter: Exporter, example: tuple[Tensor, ...], answers: Sequence[Tensor]
) -> dict[str, str]:
    """Write an example and the network's answers to it beside a file; return the manifest entry.

    Forms that change numbers have no exact outputs, so nothing is written for them.

    Raises:
        RunError: the file cannot be written.
    """
    if not isinstance(exporter, Exact):
        return {}
    tensors = {f"input_{i}": x for i, x in enumerate(example)}
    tensors |= {f"output_{i}": x for i, x in enumerate(answers)}
    path = shipped.parent / FILE
    write_tensors(path, {name: x.detach().clone().contiguous() for name, x in tensors.items()})
    return {DIGEST: file_digest(path.read_bytes())}


def check_golden(shipped: Path, runner: Runner, recorded: Mapping[str, object]) -> Check:
    """Return the check that a file answers its example as the network did; no errors are raised."""
    path, recorded_digest = shipped.parent / FILE, recorded.get(DIGEST)
    try:
        digest = file_digest(path.read_bytes())
    except OSError as error:
        return failed(NAME, FILE, None, f"{path} cannot be read: {error.strerror or error}.")
    if digest != recorded_digest:
        wrong = f"{path} is not what the manifest recorded."
        return failed(
            NAME, str(recorded_digest)[:12] if recorded_digest else None, digest[:12], wrong
        )
    try:
        return _compared(path, shipped, runner)
    except PrunecError as error:
        return failed(NAME, 0.0, "no outputs", f"{error.message}.")


def _compared(path: Path, shipped: Path, runner: Runner) -> Check:
    tensors = read_tensors(path)
    given, expected = (_numbered(tensors, kind) for kind in ("input", "output"))
    answers = next(iter(runner.open(shipped).run([given])))
    shapes = [x.shape for x in expected]
    if [x.shape for x in answers] != shapes:
        return failed(NAME, str(shapes), str([x.shape for x in answers]), "shapes differ.")
    shares = map(share, answers, expected)
    worst = max(shares, default=0.0)
    passed = worst <= TOLERANCE
    wrong = f"outputs differ by {worst:.3g} of their largest value." if not passed else ""
    return Check(NAME, 0.0, worst, TOLERANCE, passed, wrong)


def _numbered(tensors: Mapping[str, Tensor], kind: str) -> list[np.ndarray]:
    names = (f"{kind}_{i}" for i in range(len(tensors)))
    return [tensors[name].numpy() for name in names if name in tensors]


def share(answers: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference as a share of the largest value; infinity if it is not a
    number.
    """
    one, other = (values.astype(np.float64) for values in (answers, expected))
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(one - other))
    if not np.isfinite(apart).all():
        return float("inf")
    finite = np.abs(other[np.isfinite(other)])
    # tiny: an output of zeros has no scale.
    return float(apart.max(initial=0.0) / max(finite.max(initial=0.0), np.finfo(np.float32).tiny))
