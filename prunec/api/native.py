"""Compiled networks in C as functions of arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from prunec import catalogue
from prunec.deploy.runner import once
from prunec.errors import PrunecError


def load_native(path: Path | str) -> Callable[..., np.ndarray | list[np.ndarray]]:
    """Build what ``prunec export --c`` wrote, by this machine's compiler, and load it.

    Args:
        path: the folder, or the source in it.

    Returns:
        A function of one array for each input, float32, batch first ([N, C, H, W] for images), that
        returns the output, or a list of them where there are more. It keeps a workspace: for calls
        from several threads at once load it once for each.

    Raises:
        PrunecError: there is no such file, no compiler, or the files are not whole.
    """
    given = Path(path)
    source = given / "model.c" if given.is_dir() else given
    if not source.is_file():
        raise PrunecError(
            f"{source} is not there", remedy="Write it: prunec export --c, and name its folder."
        )
    loaded = catalogue.runner_for(source.suffix).open(source)

    def run(*inputs: np.ndarray) -> np.ndarray | list[np.ndarray]:
        outputs = once(loaded, inputs)
        return outputs[0] if len(outputs) == 1 else outputs

    return run
