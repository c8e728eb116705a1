"""The C compiler of this machine."""

from __future__ import annotations

import os
import shutil

from prunec.errors import PrunecError

_INSTALL = "Install one (Debian and Ubuntu: apt install gcc), or name it in CC."


def compiler() -> str:
    """Return the C compiler: that of ``CC``, or ``cc``.

    Raises:
        PrunecError: there is none.
    """
    named = os.environ.get("CC") or "cc"
    found = shutil.which(named)
    if found is None:
        raise PrunecError(f"no C compiler: {named} is not installed", remedy=_INSTALL)
    return found
