"""Order: all laws of one network run one after the other, so that it is compiled once."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = [i for i, item in enumerate(items) if item.path.name == "test_laws.py"]
    laws = sorted((items[i] for i in places), key=_network)
    for place, item in zip(places, laws, strict=True):
        items[place] = item


def _network(item: pytest.Item) -> str:
    assert isinstance(item, pytest.Function)
    return str(item.callspec.params["name"])
