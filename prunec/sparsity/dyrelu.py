"""DyReLU-B (Chen et al., ECCV 2020, 2003.10027), phased out to ReLU: EAST's richer early training.

For x of shape [N, C, …], s its mean over places:

    θ = 2σ(FC₂(ReLU(FC₁ s))) − 1,      (a₁, a₂, b₁, b₂) = (1, 0, 0, 0) + β·θ⊙(1, 1, ½, ½),
    y_c = max(a₁x_c + b₁, a₂x_c + b₂).

β = 1 is DyReLU-B with K = 2 and reduction 4, β = 0 is ReLU exactly: these are the coefficients of
the one blended with those of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from prunec.errors import PassError
from prunec.sparsity.two_lines import Larger, Recomputed

REDUCTION = 4
HELD = "dyrelu"  # what the network holds them under while it trains
_IN_PLACE = frozenset({F.relu_, torch.relu_, Tensor.relu_})
_RELUS = frozenset({F.relu, torch.relu, Tensor.relu}) | _IN_PLACE


class DyReLU(nn.Module):
    """A unit for C channels: 1.25·C² + 4.25·C parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // REDUCTION)
        self.squeeze = nn.Linear(channels, hidden)
        self.expand = nn.Linear(hidden, 4 * channels)

    def forward(self, x: Tensor, beta: float | Tensor) -> Tensor:
        """Return y, of the shape of x [N, C, …]."""
        s = x.flatten(2).mean(-1) if x.dim() > 2 else x
        half = self.expand(F.relu(self.squeeze(s))) / 2
        theta = beta * torch.tanh(half)  # tanh(z/2) = 2σ(z) − 1
        theta = theta.view(len(x), 4, -1, *[1] * (x.dim() - 2))
        a1, a2, b1, b2 = theta.unbind(1)
        way = Recomputed if x.device.type == "cuda" else Larger
        result: Tensor = way.apply(x, 1 + a1, a2, b1 / 2, b2 / 2)
        return result


class Units(nn.ModuleList):
    """Units in the order of their calls; a sequence that holds them passes its result through."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        return x


class _Answering(TorchFunctionMode):
    """Answers every call of ReLU; what the answer itself computes is left alone.

    A tensor without channels, [N] or a number, keeps its ReLU.

    Attributes:
        writes: whether a call in place changes its argument, too; one pass over it more.
    """

    def __init__(self, answer: Callable[[Tensor], Tensor], *, writes: bool) -> None:
        super().__init__()
        self.answer, self.writes = answer, writes

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func not in _RELUS:
            return func(*args, **given)
        x: Tensor = args[0] if args else given["input"]
        if x.dim() < 2:
            return func(*args, **given)
        in_place = func in _IN_PLACE or bool(given.get("inplace", args[1:2] == (True,)))
        if not (in_place and self.writes):
            return self.answer(x)
        return x.copy_(self.answer(x.clone()))


class Phasing:
    """DyReLU in place of every ReLU that a network calls, module or function, in their order.

    The network's code is left as it is: while its forward pass runs, the i-th call of ReLU is
    answered by the i-th unit.

    Attributes:
        channels: of each call.
        units: one for each.
        beta: how far they are from ReLU.
        shown: the same as a tensor beside the units, off the CPU: recorded steps read it there.
        waits: whether β = 1 is plain ReLU, too: then units first act when β begins to fall.
    """

    def __init__(self, channels: list[int], *, writes: bool = False) -> None:
        self.channels = channels
        self.units = Units(DyReLU(count) for count in channels)
        self.beta = 1.0
        self.shown: Tensor | None = None
        self.waits = False
        self.calls = 0
        self.mode = _Answering(self._answer, writes=writes)
        self.hooks: tuple[RemovableHandle, ...] = ()

    def install(self, module: nn.Module) -> None:
        """Let ``module`` hold the units, and compute with them until :meth:`remove`."""
        module.add_module(HELD, self.units)
        self.hooks = (
            module.register_forward_pre_hook(self._begin),
            module.register_forward_hook(self._end, always_call=True),
        )

    def blend(self, beta: float) -> None:
        """Set β of all units."""
        self.beta = beta
        device = next(self.units.parameters()).device
        if self.shown is None and device.type != "cpu":
            self.shown = torch.empty((), device=device)
        if self.shown is not None:
            self.shown.fill_(beta)

    def remove(self) -> None:
        """Let the network call ReLU again; it still holds the units."""
        for hook in self.hooks:
            hook.remove()
        self.beta = 0.0

    def _begin(self, module: nn.Module, given: Any) -> None:
        self.calls = 0
        self.mode.__enter__()  # type: ignore[no-untyped-call]

    def _end(self, module: nn.Module, given: Any, result: Any) -> None:
        self.mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        # A forward pass that raised an error has no result, and called fewer.
        if result is not None and self.calls < len(self.units):
            raise _differs("fewer ReLUs")

    def _answer(self, x: Tensor) -> Tensor:
        if self.calls >= len(self.units):
            raise _differs("more ReLUs")
        if x.shape[1] != self.channels[self.calls]:
            raise _differs("other ReLUs")
        unit = self.units[self.calls]
        self.calls += 1
        if self.waits and self.beta == 1:
            return F.relu(x)
        result: Tensor = unit(x, self.beta if self.shown is None else self.shown)
        return result


def _differs(how: str) -> PassError:
    return PassError(
        f"DyReLU: a forward pass calls {how} than the one before training did",
        remedy="Train without it: dyrelu_until = 0. An auxiliary head and blocks that are skipped "
        "at random do so.",
    )


def phasing_of(module: nn.Module, example: tuple[Tensor, ...]) -> Phasing:
    """Return units for the calls of ReLU that a network makes, which are not installed yet.

    Args:
        module: the network, in eval mode.
        example: its inputs, batch first.

    Raises:
        PassError: it calls none.
    """
    channels, results = _watched(module, example, writes=False)
    if not channels:
        raise PassError(
            "DyReLU stands in for ReLU, and the network calls none",
            remedy="Train without it: dyrelu_until = 0.",
        )
    _, wanted = _watched(module, example, writes=True)
    same = all(torch.equal(a, b) for a, b in zip(results, wanted, strict=True))
    return Phasing(channels, writes=not same)  # where it reads the argument after a call in place


@torch.no_grad()
def _watched(
    module: nn.Module, example: tuple[Tensor, ...], *, writes: bool
) -> tuple[list[int], list[Tensor]]:
    """Return the number of channels of each call of ReLU, in order, and the network's outputs."""
    channels: list[int] = []

    def answer(x: Tensor) -> Tensor:
        channels.append(x.shape[1])
        return x.clamp(min=0)

    with _Answering(answer, writes=writes):
        outputs = module(*(x.clone() for x in example))
    return channels, [x for x in tree_leaves(outputs) if isinstance(x, Tensor)]
