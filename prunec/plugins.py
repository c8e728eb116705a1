"""Names of plug-ins: every file in a plug-in folder is one, without further registration."""

from __future__ import annotations

import importlib
import pkgutil

PASSES = "prunec.passes"
EXPORTERS = "prunec.exporters"
RUNNERS = "prunec.deploy.runners"


def plug_in_names(package: str) -> tuple[str, ...]:
    """Return the names of the plug-ins of a package, sorted; imports none of them."""
    modules = pkgutil.iter_modules(importlib.import_module(package).__path__)
    return tuple(
        sorted(module.name.replace("_", "-") for module in modules if module.name[0] != "_")
    )
