"""Protection of the state outside a network that a forward pass may change.

Networks draw random numbers, count in class attributes, and keep grids and masks in dictionaries
beside the class or in caching functions. A trace would leave tensors without values there.
"""

from __future__ import annotations

import functools
import random
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

_REMEMBERING = functools._lru_cache_wrapper
_CONTAINERS = dict, list, set, OrderedDict, defaultdict
_LIBRARIES = frozenset(("torch", "builtins", "prunec"))


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Restore random states, classes, caches and ``requires_grad`` after the block."""
    kinds = _kinds(module)
    files = {kind.__module__ for kind in kinds}
    places = [_Place(kind, whole=True) for kind in kinds]
    places += [_Place(sys.modules[name], whole=False) for name in files if name in sys.modules]
    with ExitStack() as stack:
        devices = {p.device for p in module.parameters() if p.device.type == "cuda"}
        # Only the devices in use: by default torch forks the state of every GPU.
        stack.enter_context(torch.random.fork_rng(devices=list(devices)))
        stack.callback(random.setstate, random.getstate())
        if numpy := sys.modules.get("numpy"):
            stack.callback(numpy.random.set_state, numpy.random.get_state())
        for place in places:
            stack.callback(place.restore)
        for parameter in module.parameters():
            stack.callback(parameter.requires_grad_, parameter.requires_grad)
        yield


def _kinds(module: nn.Module) -> list[type]:
    """Return the classes of a network, except for torch's."""
    kinds = {kind for part in module.modules() for kind in type(part).__mro__}
    return [kind for kind in kinds if kind.__module__.partition(".")[0] not in _LIBRARIES]


class _Place:
    """State of a class, or of the module file that defines it, to be restored.

    Args:
        owner: class or module file.
        whole: whether to restore everything; otherwise only variables that hold a tensor without
            values, since a file has other users too.
    """

    def __init__(self, owner: Any, *, whole: bool) -> None:
        self._owner, self._whole = owner, whole
        self._held = {name: (value, _copy(value)) for name, value in _variables(owner).items()}
        self._misses = {name: value.cache_info().misses for name, value in _caches(owner).items()}

    def restore(self) -> None:
        """Restore changed variables, containers and caches."""
        for name, now in _variables(self._owner).items():
            before, content = self._held.get(name, (None, None))
            # Compared by identity: equal tensors would be compared value by value.
            if now is not before and self._spoilt(now):
                self._put_back(name, before)
            if content is not None and not _same(before, content) and self._spoilt(before):
                before.clear()
                before.extend(content) if isinstance(before, list) else before.update(content)
        for name, cache in _caches(self._owner).items():
            if cache.cache_info().misses != self._misses.get(name, 0):
                cache.cache_clear()

    def _spoilt(self, value: Any) -> bool:
        return self._whole or _is_hollow(value)

    def _put_back(self, name: str, before: Any) -> None:
        if name in self._held:
            setattr(self._owner, name, before)
        else:
            delattr(self._owner, name)


def _variables(owner: Any) -> Mapping[str, Any]:
    return {
        name: value
        for name, value in vars(owner).items()
        if not name.startswith("__") and not callable(value) and not hasattr(value, "__get__")
    }


def _caches(owner: Any) -> dict[str, Any]:
    return {name: x for name, x in vars(owner).items() if isinstance(x, _REMEMBERING)}


def _copy(value: Any) -> Any:
    return value.copy() if type(value) in _CONTAINERS else None


def _is_hollow(value: Any, depth: int = 3) -> bool:
    """Return whether a tensor without values is held, up to ``depth`` containers deep."""
    if isinstance(value, Tensor):
        return value.is_meta or isinstance(value, FakeTensor)
    items = value.values() if isinstance(value, dict) else value
    several = depth > 0 and isinstance(value, (dict, list, tuple, set))
    return several and any(_is_hollow(item, depth - 1) for item in items)


def _same(now: Any, held: Any) -> bool:
    """Return whether a container holds the very objects that it held."""
    if len(now) != len(held):
        return False
    if isinstance(now, dict):
        return all(key in now and now[key] is value for key, value in held.items())
    return bool(now == held) if isinstance(now, set) else all(map(_is, now, held))


def _is(a: object, b: object) -> bool:
    return a is b
