"""Formulas that a GPU computes as one kernel where torch can compile one, else as they are.

A formula of ten operations goes over memory ten times, and a GPU waits for memory and for launches.
Triton, which comes with torch's builds for CUDA, needs a C compiler at run time; machines without
one are common, and there the plain formula is what trains.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._triton import has_triton


class Fused:
    """A formula of tensors, compiled at its first call.

    Attributes:
        plain: the formula.
        reason: why it is computed as it is; empty while it is compiled.
    """

    def __init__(self, plain: Callable[..., Any]) -> None:
        self.plain, self.reason = plain, ""
        # Sizes stay symbols: layers differ in them, and each would be compiled by itself.
        self.compiled = torch.compile(plain, dynamic=True)

    def __call__(self, *given: Tensor) -> Any:
        """Return the formula's answer; one that cannot be compiled is computed as it is."""
        if self.reason:
            return self.plain(*given)
        try:
            return self.compiled(*given)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # Dynamo, Inductor and Triton each raise kinds of their own
            result = self.plain(*given)  # first: what is wrong with the arguments is raised here
            self.reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            return result


@cache
def fused(formula: Callable[..., Any]) -> Callable[..., Any]:
    """Return a formula as one kernel for tensors of any size; as it is where none can be built."""
    return Fused(formula) if has_triton() else formula
