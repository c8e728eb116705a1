"""Compiled networks in C as functions of arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from prunec import catalogue
from prunec.deploy.runner import once
from prunec.errors import PrunecError


def load_native(path: Path | str) -> Callable[..., np.ndarray | list[np.ndarray]]:
    """Compile the C sources of ``prunec export --c`` with this machine's compiler, and load them.

    Args:
        path: the folder, or the source file in it.

    Returns:
        A function of one float32 array per input, batch first ([N, C, H, W] for images), that
        returns the output, or a list of several outputs. It owns a workspace: load it once per
        thread for concurrent calls.

    Raises:
        PrunecError: there is no such file, no compiler, or files are missing or damaged.
    """
    given = Path(path)
    source = given / "model.c" if given.is_dir() else given
    if not source.is_file():
        raise PrunecError(
            f"{source} does not exist", remedy="Write it: prunec export --c; then name its folder."
        )
    loaded = catalogue.runner_for(source.suffix).open(source)

    def run(*inputs: np.ndarray) -> np.ndarray | list[np.ndarray]:
        outputs = once(loaded, inputs)
        return outputs[0] if len(outputs) == 1 else outputs

    return run
