"""Shell completion: names that are known without importing torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer.completion import (
    get_completion_inspect_parameters,
    install_callback,
    show_callback,
)

get_completion_inspect_parameters()  # registers typer's shells as a side effect


Shell = Literal["bash", "zsh", "fish", "powershell", "pwsh"]
Install = Annotated[
    Shell | None,
    typer.Option(
        "--install-completion",
        metavar="SHELL",
        callback=install_callback,
        is_eager=True,
        expose_value=False,
        help="Install completion of commands, names and keys: bash, zsh, fish, powershell, pwsh",
    ),
]
Show = Annotated[
    Shell | None,
    typer.Option(
        "--show-completion",
        metavar="SHELL",
        callback=show_callback,
        is_eager=True,
        expose_value=False,
        help="Print the completion script",
    ),
]


def recipe_references(incomplete: str) -> Iterator[str]:
    """Yield the packaged recipes, recipe files and folders that begin with ``incomplete``."""
    from prunec.recipe import packaged_recipes

    yield from _beginning(packaged_recipes(), incomplete)
    yield from (path for path in _paths(incomplete) if path.endswith(("/", ".toml")))


def packaged_names(incomplete: str) -> Iterator[str]:
    """Yield the packaged recipes that begin with ``incomplete``."""
    from prunec.recipe import packaged_recipes

    return _beginning(packaged_recipes(), incomplete)


def pass_names(incomplete: str) -> Iterator[str]:
    """Yield the passes that begin with ``incomplete``."""
    from prunec.plugins import PASSES, plug_in_names

    return _beginning(plug_in_names(PASSES), incomplete)


def runner_names(incomplete: str) -> Iterator[str]:
    """Yield the runners that begin with ``incomplete``."""
    from prunec.plugins import RUNNERS, plug_in_names

    # ssh takes an address; completing `ssh://` shows how it begins.
    names = (f"{name}://" if name == "ssh" else name for name in plug_in_names(RUNNERS))
    return _beginning(names, incomplete)


def run_names(context: typer.Context, incomplete: str) -> Iterator[str]:
    """Yield the runs that begin with ``incomplete``, of the folder of ``--runs``."""
    from prunec.store.finding import run_folders, runs_root

    named = context.params.get("runs") or context.params.get("root")
    root = runs_root(Path(named) if named else None)
    return _beginning([run.name for run in run_folders(root)], incomplete)


def data_names(incomplete: str) -> Iterator[str]:
    """Yield the data sets and folders that begin with ``incomplete``."""
    from prunec.cli.starter_data import DATA

    yield from _beginning(DATA, incomplete)
    yield from (path for path in _paths(incomplete) if path.endswith("/"))


def method_names(incomplete: str) -> Iterator[str]:
    """Yield the training methods that begin with ``incomplete``."""
    from prunec.cli.starter import methods

    return _beginning(methods(), incomplete)


def model_names(incomplete: str) -> Iterator[str]:
    """Yield torchvision's networks that begin with ``incomplete``, or timm's after ``timm:``."""
    yield from _beginning(_networks(incomplete), incomplete)


def inspectable(context: typer.Context, incomplete: str) -> Iterator[str]:
    """Yield the arguments of ``prunec inspect``: runs, recipes, networks."""
    yield from run_names(context, incomplete)
    yield from recipe_references(incomplete)
    yield from model_names(incomplete)


def network_files(incomplete: str) -> Iterator[str]:
    """Yield networks, recipe files, ONNX files and folders that begin with ``incomplete``."""
    yield from model_names(incomplete)
    yield from (p for p in _paths(incomplete) if p.endswith(("/", ".toml", ".onnx")))


def runs_and_files(context: typer.Context, incomplete: str) -> Iterator[str]:
    """Yield runs, ONNX files and folders that begin with ``incomplete``."""
    yield from run_names(context, incomplete)
    yield from (p for p in _paths(incomplete) if p.endswith(("/", ".onnx")))


def settings(args: list[str], incomplete: str) -> Iterator[str]:
    """Yield the keys for ``--set`` that begin with ``incomplete``.

    The keys of the passes of the recipe that the command line names are among them.
    """
    from prunec.recipe import packaged_recipes, settable_keys

    # bash hands the line over in the first variable, other shells in the second.
    typed = (os.environ.get(key, "") for key in ("COMP_WORDS", "_TYPER_COMPLETE_ARGS"))
    words = [*args, *" ".join(typed).split()]
    known = packaged_recipes()
    named = next((word for word in words if word.endswith(".toml") or word in known), "")
    return _beginning((f"{key}=" for key in settable_keys(named)), incomplete)


def _networks(incomplete: str) -> Iterable[str]:
    """Read the names of networks from the source files of a library: importing it takes seconds."""
    from importlib.util import find_spec

    library = "timm" if incomplete.startswith("timm:") else "torchvision"
    spec = find_spec(library)
    if spec is None or spec.origin is None:
        return ["timm:"]
    names = set()
    for path in (Path(spec.origin).parent / "models").rglob("*.py"):
        for match in _REGISTERED.finditer(path.read_text("utf-8")):
            names.add(match[1])
    if library == "timm":
        return sorted(f"timm:{name}" for name in names)
    # timm: stands for its thousand names, which follow once it is typed.
    return [*sorted(name for name in names), "timm:"]


_REGISTERED = re.compile(r"^@register_model\b.*\n(?:@.*\n|[ )].*\n)*def (\w+)\(", re.MULTILINE)
"""The definition of a function that torchvision or timm registers as a constructor of a network."""


def _paths(incomplete: str) -> Iterator[str]:
    """Yield the files, and the folders with a slash, that begin with ``incomplete``."""
    # The x makes `runs/` complete inside the folder: Path drops a final slash.
    folder = Path(incomplete + "x").parent
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if not path.name.startswith("."):
            yield from _beginning([f"{path}/" if path.is_dir() else str(path)], incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> Iterator[str]:
    return (name for name in names if name.startswith(incomplete))
