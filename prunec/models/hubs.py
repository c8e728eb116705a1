"""Refusal of networks and weights on a hub: nothing is downloaded; the remedy names the steps."""

from __future__ import annotations

import re
from pathlib import Path

from prunec.errors import DataError, RecipeError
from prunec.wording import shortened

_TIMM = re.compile(
    r"(?:timm:)?(?:hf[-_]hub:/*|hf:/+|https://huggingface\.co/)?timm/(?P<arch>\w+)(?:\.(?P<tag>\w+))?"
)
_HUB = re.compile(
    r"(?:timm:)?(?:(?:hf[-_]hub|hub|torch[-_]?hub|huggingface|hf):/*|https?:/+[\w.]+/)?"
    r"(?P<name>[\w.-]+/[\w.-]+)(?:[:/@].*)?"
)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/+.+", re.IGNORECASE)


def refuse_network_of_hub(name: str) -> None:
    """Refuse the name of a network on a hub.

    Raises:
        RecipeError: ``name`` is one; the remedy names the steps to use that network.
    """
    message = f"model.name = {shortened(name)!r} is on a hub, and networks are not downloaded"
    timms = _TIMM.fullmatch(name)
    if timms:
        raise RecipeError(message, remedy=_timms(timms["arch"], timms["tag"]))
    hubs = _HUB.fullmatch(name)
    if hubs and not name.startswith((".", "/")) and not _is_here(hubs["name"]):
        raise RecipeError(
            message,
            remedy=f"Download {hubs['name']} (hf download {hubs['name']}, or git clone "
            f"https://github.com/{hubs['name']}), write a function that returns the network into a "
            "file of yours, model.name = 'my_networks:build', and set model.weights to the path of "
            "its weights.",
        )


def _is_here(name: str) -> bool:
    """Return whether a name is a Python file, or starts with a folder that exists here."""
    return name.endswith(".py") or Path(name.partition("/")[0]).is_dir()


def refuse_address(key: str, weights: str) -> None:
    """Refuse weights that are given as a URL.

    Raises:
        DataError: ``weights`` is a URL.
    """
    if _ADDRESS.fullmatch(weights):
        raise DataError(
            f"model.{key} = {shortened(weights)!r} is a URL, but weights are read from files",
            remedy=f"Download it and set model.{key} to its path.",
        )


def _timms(arch: str, tag: str | None) -> str:
    file = f"https://huggingface.co/timm/{arch}{f'.{tag}' if tag else ''}/resolve/main/"
    return (
        f"Set model.name = 'timm:{arch}'. For its weights, download {file}model.safetensors and "
        "set model.weights to its path."
    )
