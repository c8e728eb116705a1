"""Section on reproduction: commands, recipe, versions, machine, digests."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from prunec.page.reading import RunRecord
from prunec.store.environment import install_tagged
from prunec.store.records import BEGAN

MACHINE = ("platform", "cpu", "cores", "threads", "cuda", "devices")


@dataclass(frozen=True)
class Reproduce:
    """Contents of the section; pairs are (name, value)."""

    called: str
    commands: str
    recipe: str
    versions: tuple[tuple[str, str], ...]
    machine: tuple[tuple[str, str], ...]
    digests: tuple[tuple[str, str], ...]


def reproduce(run: RunRecord) -> Reproduce:
    """Return the commands, versions and digests that reproduce a run."""
    environment = run.environment
    version = str(run.record.get("prunec") or environment.get("prunec") or "")
    usual = install_tagged(version) if version else ""
    install = str(environment.get("install") or usual)
    said_elsewhere = (*MACHINE, BEGAN, "install", "commit")
    versions = {k: v for k, v in environment.items() if k not in said_elsewhere}
    machine = {k: environment[k] for k in MACHINE if k in environment}
    digests = {
        "recipe": run.record.get("digest"),
        **{f"weights after {step.name}": step.digest for step in run.history},
        **{
            f"{form} file, sha256": entry.get("sha256")
            for form, entry in run.manifest.items()
            if isinstance(entry, dict)
        },
    }
    if commit := environment.get("commit"):
        digests["commit of the working folder"] = commit
    digests |= _of_data(run.exported.data if run.exported else {})
    return Reproduce(
        called=called_as(run.record.get("command")),
        commands=_commands(install, bool(run.recipe_text), tuple(run.manifest) or ("onnx",)),
        recipe=run.recipe_text,
        versions=_pairs(versions),
        machine=_pairs(machine),
        digests=_pairs(digests),
    )


def called_as(command: object) -> str:
    """Return a recorded command line as typed in a shell; empty where none is recorded."""
    if not isinstance(command, list) or not command:
        return ""
    program, *arguments = map(str, command)
    # As typed: the recorded path is that of an environment that others do not have.
    if PurePath(program).name in ("prunec", "__main__.py"):
        program = "prunec"
    return shlex.join([program, *arguments])


def _of_data(data: Mapping[str, Any]) -> dict[str, str]:
    """Return the digests of the splits, with their sizes in the names."""
    digests, sizes = data.get("sha256"), data.get("samples")
    if not isinstance(digests, dict) or not isinstance(sizes, dict):
        return {}
    what = data.get("digest_of", "contents")
    return {
        f"{split} split, {sizes.get(split)} samples, sha256 of {what}": str(digest)
        for split, digest in digests.items()
    }


def _commands(install: str, has_recipe: bool, forms: Sequence[str]) -> str:
    lines = [install] if install else []
    if has_recipe:
        lines.append("prunec train recipe.toml    # the text below")
    flags = " ".join(f"--{shlex.quote(form)}" for form in forms)
    return "\n".join([*lines, f"prunec export {flags}"])


def _pairs(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((name, _plain(value)) for name, value in values.items() if value not in (None, []))


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
