"""Kernels one after the other in one memory: what is done to all of them is one operation.

A GPU waits for launches, so there one operation takes all kernels; a processor waits for memory, so
there each kernel is worked on while it is in the cache. :attr:`Flat.spans` says which: methods loop
over spans, and an operation on a span is written once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from prunec.errors import PassError
from prunec.sparsity.fused import fused

NUMPY = (torch.float32, torch.float64)  # what numpy computes with several times as fast, on the CPU
ROW = 1024  # weights: kernels begin with a row, so that a number of each is one number a row


@dataclass(frozen=True)
class Span:
    """Kernels on which an operation works at once.

    Attributes:
        kernels: their numbers.
        begin: first weight of the memory that is theirs.
        end: the one after the last.
        row_of: kernel of each row, [rows], counted from the first of ``kernels``; None: the span is
            one kernel, without the rest of its last row.
        ends: rows of the span before each kernel's end, [kernels].
    """

    kernels: slice
    begin: int
    end: int
    row_of: Tensor | None = None
    ends: Tensor | None = None

    def of(self, memory: Tensor) -> Tensor:
        """Return the span's part of a memory, [weights], or [rows, ROW] of several kernels."""
        part = memory[self.begin : self.end]
        return part if self.row_of is None else part.view(-1, ROW)

    def per_row(self, values: Tensor) -> Tensor:
        """Return a number of each kernel, [kernels], such that it broadcasts against :meth:`of`."""
        return values if self.row_of is None else values[self.row_of].unsqueeze(1)

    def nonzero(self, memory: Tensor) -> Tensor:
        """Return how many numbers of each kernel are not 0, [kernels]."""
        if self.row_of is None:
            return torch.tensor([counted(self.of(memory))])
        return self.sums(self.of(memory) != 0)

    def sums(self, values: Tensor) -> Tensor:
        """Return the sum over each kernel, [kernels], of numbers laid out as :meth:`of`.

        Rows are summed in their own dtype (bool: as integers), kernels in float64 or int64.
        """
        if self.ends is None:
            return values.sum().view(1)
        rows = values.sum(1)
        return self._of_rows(rows.double() if rows.is_floating_point() else rows)

    def counts_from(self, values: Tensor, bounds: Tensor) -> Tensor:
        """Return how many numbers of each kernel reach each of its bounds, [kernels, bounds].

        Args:
            values: laid out as :meth:`of`.
            bounds: [kernels, bounds].
        """
        if self.row_of is None or self.ends is None:
            return (values >= bounds.T).sum(1).unsqueeze(0)
        return self._of_rows(fused(counted_rows)(values, bounds, self.row_of))

    def _of_rows(self, rows: Tensor) -> Tensor:
        """Return the sums of each kernel's rows, by differences of running sums."""
        assert self.ends is not None
        running = rows.cumsum(0).index_select(0, self.ends - 1)
        return torch.diff(running, dim=0, prepend=torch.zeros_like(running[:1]))


class Values:
    """A number for each weight, laid out as the kernels lie.

    Attributes:
        memory: all of them; 0 between kernels unless somebody wrote there.
        parts: each kernel's, in its shape and layout.
    """

    def __init__(self, memory: Tensor, parts: list[Tensor]) -> None:
        self.memory, self.parts = memory, parts


class Flat:
    """Parameters whose memory is one.

    Attributes:
        names: of the parameters.
        weights: the parameters.
        raw: their memory, as of the last :meth:`settle`.
        spans: the kernels in the pieces that are worked on at once.
        whole: all of them as if they were one kernel.
        rests: places in the memory that are no weight.
        moves: how often they were brought together: what is laid out as they were is out of date.
    """

    def __init__(self, kernels: Mapping[str, Tensor], *, together: bool | None = None) -> None:
        """Take kernels; nothing moves before :meth:`settle`.

        Args:
            kernels: by parameter name; of one dtype, on one device.
            together: whether operations take all kernels at once; by default off the CPU alone.

        Raises:
            PassError: they are of several dtypes.
        """
        self.names = tuple(kernels)
        self.weights = list(kernels.values())
        self.together = together
        dtypes = {w.dtype for w in self.weights}
        if len(dtypes) > 1:
            raise PassError(
                f"kernels that may be masked are of several dtypes: {sorted(map(str, dtypes))}",
                remedy="Let the network be of one dtype (network.float()), or name layers dense.",
            )
        self.sizes = [w.numel() for w in self.weights]
        rows = [-(-size // ROW) for size in self.sizes]
        self.starts = [ROW * sum(rows[:i]) for i in range(len(rows))]
        self.length = ROW * sum(rows)
        self.rows = rows
        self.strides: list[tuple[int, ...]] = []
        self.raw = Values(self.weights[0].new_empty(0), [])
        self.spans: list[Span] = []
        self.whole = Span(slice(0, 1), 0, self.length)
        self.rests = torch.empty(0, dtype=torch.long)
        self.moves = 0

    @property
    def at_once(self) -> bool:
        """Whether operations take all kernels, and none may wait for the device."""
        return self.whole.row_of is not None

    @torch.no_grad()
    def settle(self) -> None:
        """Bring together what does not lie here, as after a change of the layout or the device."""
        places = zip(self.weights, self.raw.parts, strict=False)
        if self.raw.parts and all(_same_place(w, part) for w, part in places):
            return
        self.moves += 1
        # w's layout without gaps between its weights; on the meta device it takes no memory.
        self.strides = [torch.empty_like(w, device="meta").stride() for w in self.weights]
        self.raw = self.room()
        torch._foreach_copy_(self.raw.parts, self.weights)
        for weight, part in zip(self.weights, self.raw.parts, strict=True):
            weight.data = part
        self.spans, self.whole = self._spans()
        self.rests = self._rests()

    def room(self, fill: float = 0.0) -> Values:
        """Return memory for a number of each weight."""
        if not self.strides:
            self.settle()
        first = self.weights[0]
        memory = torch.full((self.length,), fill, dtype=first.dtype, device=first.device)
        layout = zip(self.weights, self.strides, self.starts, strict=True)
        return Values(memory, [memory.as_strided(w.shape, s, begin) for w, s, begin in layout])

    def moved(self, values: Values) -> Values:
        """Return the same values in memory of the layout of now."""
        room = self.room()
        torch._foreach_copy_(room.parts, values.parts)
        return room

    def counts(self, values: Values) -> list[int]:
        """Return how many of each kernel are not 0; one wait for the device."""
        counts: list[int] = torch.cat([span.nonzero(values.memory) for span in self.spans]).tolist()
        return counts

    def gradients(self) -> list[Tensor]:
        """Return the kernels' gradients; 0 where there is none."""
        gradients = [w.grad for w in self.weights]
        return [g if g is not None else torch.zeros_like(w)
                for g, w in zip(gradients, self.weights, strict=True)]  # fmt: skip

    def _spans(self) -> tuple[list[Span], Span]:
        device = self.weights[0].device
        together = device.type != "cpu" if self.together is None else self.together
        if not together:
            places = zip(self.starts, self.sizes, strict=True)
            single = [Span(slice(i, i + 1), b, b + n) for i, (b, n) in enumerate(places)]
            return single, Span(slice(0, 1), 0, self.length)
        return [self._span(torch.tensor(self.rows))], self._span(torch.tensor([sum(self.rows)]))

    def _rests(self) -> Tensor:
        places = zip(self.starts, self.sizes, self.rows, strict=True)
        rests = [torch.arange(begin + n, begin + ROW * rows) for begin, n, rows in places]
        return torch.cat(rests).to(self.weights[0].device)

    def _span(self, rows: Tensor) -> Span:
        """All rows, so many of each kernel."""
        device = self.weights[0].device
        row_of = torch.repeat_interleave(torch.arange(len(rows)), rows)
        ends = rows.cumsum(0)
        return Span(slice(0, len(rows)), 0, self.length, row_of.to(device), ends.to(device))


def counted_rows(values: Tensor, bounds: Tensor, row_of: Tensor) -> Tensor:
    """Return how many numbers of each row are at least each bound of the row's kernel.

    Compiled, each number is read once; as it is, answers of one byte are written between.

    Args:
        values: [rows, ROW].
        bounds: [kernels, bounds].
        row_of: kernel of each row, [rows].

    Returns:
        int64 [rows, bounds].
    """
    return (values.unsqueeze(2) >= bounds[row_of].unsqueeze(1)).sum(1)


def counted(values: Tensor) -> int:
    """Return how many numbers of a tensor on the CPU are not 0."""
    if values.dtype in NUMPY:
        return int(np.count_nonzero(values.numpy() != 0))
    return int(torch.count_nonzero(values))


def _same_place(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.stride() == b.stride()


@torch.no_grad()
def give_own_memory(module: nn.Module) -> None:
    """Let every parameter have memory of its own again, so that one of them can be kept alone."""
    for parameter in module.parameters():
        if parameter.untyped_storage().nbytes() > parameter.nbytes:
            parameter.data = parameter.data.clone()


def softshrink(span: Span, raw: Tensor, bounds: Tensor, out: Tensor) -> None:
    """Let ``out`` be sign(w)·max(|w| − bound, 0); NaN where the bound is.

    Args:
        span: the kernels.
        raw: the memory of w, all of it, as ``out``.
        bounds: of each kernel of the span, at least 0.
        out: memory of the result.
    """
    given, result = span.of(raw), span.of(out)
    if span.row_of is None:
        bound = float(bounds)  # on the CPU: nothing waits
        if bound == bound:
            torch.ops.aten.softshrink.out(given, bound, out=result)
        else:  # softshrink refuses it, and the loop is to say that the training diverged
            result.fill_(bound)
        return
    rows = span.per_row(bounds.to(given.dtype))
    # w − clamp(w, −b, b) = sign(w)·max(|w| − b, 0).
    torch.clamp(given, -rows, rows, out=result)
    torch.sub(given, result, out=result)


def hardshrink(span: Span, raw: Tensor, bounds: Tensor, out: Tensor) -> None:
    """Let ``out`` be w where |w| > bound, else 0; arguments as :func:`softshrink`'s."""
    given, result = span.of(raw), span.of(out)
    if span.row_of is None:
        torch.ops.aten.hardshrink.out(given, float(bounds), out=result)
        return
    torch.abs(given, out=result)
    torch.gt(result, span.per_row(bounds.to(given.dtype)), out=result)
    result.mul_(given)
