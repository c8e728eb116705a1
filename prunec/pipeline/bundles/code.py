"""Native code in a bundle: sources, and a library that is built from them on this machine.

The manifest does not list it among its forms, so that no reader of bundles runs it unasked: `files`
has its digests, `code` the system and processor that the library is for.
"""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path
from typing import Any

from prunec.deploy import golden
from prunec.deploy.checks import ExportReport
from prunec.deploy.native.compiler import EVERYWHERE, build, library_name
from prunec.errors import RunError
from prunec.store.runs import RunFolder

FORM = "c"


def native_code(run: RunFolder, report: ExportReport) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files of native code by name, and the manifest's entry for them.

    Raises:
        RunError: the run has no native code that passed its checks.
        PrunecError: no compiler is installed, or it refuses the source.
    """
    source = run.export.shipped(FORM, ".c")
    if FORM not in report.forms or not report.forms[FORM].passed or not source.is_file():
        raise RunError(
            "--native: the run has no native code that passed its checks",
            remedy="Export it with --c.",
        )
    files = {
        f"{FORM}/{path.name}": path.read_bytes()
        for path in sorted(source.parent.iterdir())
        if path.is_file() and path.name != golden.FILE
    }
    name = library_name(source.stem)
    with tempfile.TemporaryDirectory() as folder:
        # For every processor of this architecture: the device is not the machine that builds.
        build(source, Path(folder) / name, EVERYWHERE)
        files[f"{FORM}/{name}"] = (Path(folder) / name).read_bytes()
    said = {"source": f"{FORM}/{source.name}", "library": f"{FORM}/{name}"}
    return files, {**said, "system": platform.system(), "machine": platform.machine()}
