"""Compiled networks in C as functions of arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from prunec import catalogue
from prunec.deploy.native.library import load_with_threads, loaded_library
from prunec.deploy.runner import LoadedFile, once
from prunec.errors import PrunecError
from prunec.files import sha256_of
from prunec.pipeline.bundles.layout import MANIFEST
from prunec.pipeline.bundles.reading import opened_bundle


def load_native(path: Path | str, threads: int = 1) -> Callable[..., np.ndarray | list[np.ndarray]]:
    """Compile the C sources of ``prunec export --c`` with this machine's compiler, and load them.

    Args:
        path: the folder, or the source in it; or a library that was built elsewhere (``.so``),
            which is loaded as it is. To load one is to run it: only one that is named is, and of a
            bundle only where its digest and its weights' are those of the manifest.
        threads: threads that share each layer (OpenMP), for one that is built here.

    Returns:
        A function of one float32 array per input, batch first ([N, C, H, W] for images), that
        returns the output, or a list of several outputs. It owns a workspace: load it once per
        thread for concurrent calls.

    Raises:
        PrunecError: there is no such file, no compiler, or files are missing or damaged; or the
            number of threads does not apply.
    """
    if threads < 1:
        raise PrunecError(f"threads = {threads}", remedy="Name one thread or more.")
    given = Path(path)
    source = given / "model.c" if given.is_dir() else given
    if not source.is_file():
        raise PrunecError(
            f"{source} does not exist", remedy="Write it: prunec export --c; then name its folder."
        )
    loaded = _loaded(source, threads)

    def run(*inputs: np.ndarray) -> np.ndarray | list[np.ndarray]:
        outputs = once(loaded, inputs)
        return outputs[0] if len(outputs) == 1 else outputs

    return run


def _loaded(source: Path, threads: int) -> LoadedFile:
    """Return a network: of a library that is named itself, else built from its source."""
    if source.suffix == ".so":
        if threads > 1:
            raise PrunecError(
                f"{source.name} is built already: it has the threads of its build",
                remedy="Name the source, to build it here with threads.",
            )
        _require_digests(source)
        return loaded_library(source)
    try:
        if threads > 1:
            return load_with_threads(source, threads)
        return catalogue.runner_for(source.suffix).open(source)
    except PrunecError as error:
        built = sorted(path.name for path in source.parent.glob(f"{source.stem}-*.so"))
        # A library is a program: it is only named here, and loaded if the user names it.
        if not built or "no C compiler" not in error.message:
            raise
        remedy = f"{error.remedy} Or load what was built elsewhere, if you trust it: {built[0]}."
        raise PrunecError(error.message, remedy=remedy) from error


def _require_digests(library: Path) -> None:
    """Refuse a library of a bundle that differs from what its manifest declares.

    Raises:
        PrunecError: library or weights differ, or the manifest does not name the library.
    """
    # A bundle's libraries lie in its folder c/.
    root = library.resolve().parent.parent
    if not (root / MANIFEST).is_file():
        return
    with opened_bundle(root) as bundle:
        for path in (library.resolve(), *library.resolve().parent.glob("*.bin")):
            entry = bundle.files.get(path.relative_to(root).as_posix())
            if entry is None or entry["sha256"] != sha256_of(path):
                raise PrunecError(
                    f"{path.name} is not what the bundle's manifest declares",
                    remedy="Ask its maker for the bundle again.",
                )
