"""Networks and weights that lie in a hub: nothing is fetched, and it is told how they come in."""

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
    """Say how a network that a hub has comes in, if the name of a network is one of a hub's.

    Raises:
        RecipeError: it is.
    """
    said = f"model.name = {shortened(name)!r} lies in a hub, and networks are not fetched"
    timms = _TIMM.fullmatch(name)
    if timms:
        raise RecipeError(said, remedy=_timms(timms["arch"], timms["tag"]))
    hubs = _HUB.fullmatch(name)
    if hubs and not name.startswith((".", "/")) and not _is_here(hubs["name"]):
        raise RecipeError(
            said,
            remedy=f"Fetch {hubs['name']} where there is a network (hf download {hubs['name']}, or "
            f"git clone https://github.com/{hubs['name']}), write a function that returns the "
            "network into a file of yours, model.name = 'my_networks:build', and say "
            "model.weights = the path of its weights.",
        )


def _is_here(name: str) -> bool:
    """Say whether a name means a file of the user's."""
    return name.endswith(".py") or Path(name.partition("/")[0]).is_dir()


def refuse_address(key: str, weights: str) -> None:
    """Say that weights are read from files, if they are given as an address.

    Raises:
        DataError: they are.
    """
    if _ADDRESS.fullmatch(weights):
        raise DataError(
            f"model.{key} = {shortened(weights)!r} is an address, and weights are read from files",
            remedy=f"Fetch it where there is a network, put it anywhere, and say model.{key} = its "
            "path.",
        )


def _timms(arch: str, tag: str | None) -> str:
    file = f"https://huggingface.co/timm/{arch}{f'.{tag}' if tag else ''}/resolve/main/"
    return (
        f"Say model.name = 'timm:{arch}'. For its weights, fetch {file}model.safetensors where "
        "there is a network, put it anywhere, and say model.weights = its path."
    )
