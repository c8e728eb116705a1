"""A recording of operations on the CPU, true to memory and blind to Python as a CUDA graph is.

Every operation below autograd is written down with the tensors and numbers that it was given, and
done again by a replay; what it made before is written into the same memory. Numbers of Python stay
as they were. A look at a value breaks the recording off, as CUDA does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from prunec.training.recording import Backend

LOOKS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "unique", "masked_select")


def _memory(x: Any) -> Any:
    """Return the current memory of a tensor, which may get other memory later."""
    return x.detach() if isinstance(x, Tensor) else x


class _Writing(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.made: set[int] = set()
        self.lines: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(look in func.__name__ for look in LOOKS) and not self._is_known(args[0]):
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        if func.__name__.startswith("index.") and any(
            isinstance(x, Tensor) and x.dtype == torch.bool for x in tree_leaves(args[1])
        ):
            raise RuntimeError("operation not permitted when stream is capturing: a bool index")
        made = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves(made) if isinstance(x, Tensor)]
        line = tree_map(_memory, (args, kwargs or {}, tensors))
        self.lines.append((func, *line))
        self.made |= {x.untyped_storage().data_ptr() for x in tensors}
        return made

    def _is_known(self, x: Tensor) -> bool:
        """Whether a number is one that a method keeps on the CPU whatever the device."""
        return not x.is_floating_point() and x.untyped_storage().data_ptr() not in self.made


class Tape(Backend):
    """Records by doing, after doing once, as CUDA's does; counts what it is asked for.

    Attributes:
        recorded: how often it recorded.
        replayed: how often any recording was replayed.
    """

    name = "tape"

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        work()
        with _Writing() as writing:
            work()
        self.recorded += 1

        @torch.no_grad()
        def replay() -> None:
            self.replayed += 1
            with torch.autocast("cpu", enabled=False):
                for func, args, kwargs, before in writing.lines:
                    made = func(*args, **kwargs)
                    now = [x for x in tree_leaves(made) if isinstance(x, Tensor)]
                    for old, new in zip(before, now, strict=True):
                        if old.data_ptr() != new.data_ptr():
                            old.copy_(new)

        return replay

    def wait(self) -> None:
        """Nothing is ever pending."""
