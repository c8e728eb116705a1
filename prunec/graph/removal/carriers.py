"""Folding of constant channels into the kernels that read them, exactly.

A constant channel that a kernel reads can be folded without changing the output:

- c = 0: the kernel's column has no effect and becomes zero;
- no padding: Σ_taps W[:, i]·c_i moves into the bias;
- padding (the sum differs at the border): one of the reader's constant channels, the *carrier* k,
  takes over the others, W'[:, k] = Σ_i (c_i / c_k)·W[:, i];
- after an operator that pads, or an average that counts its padding, a constant is a_i·P + b_i·Q,
  with P and Q shared by all channels. If the (a_i, b_i) are multiples of each other: one carrier.
  If the reader does not pad and P + Q = 1: one carrier, with (a_i − b_i) / (a_k − b_k) in place of
  c_i / c_k, and the rest, b_i minus that share of b_k, in the bias. Otherwise two carriers.

Folded channels are unread, and liveness removes them. A filter that is not read does not count as a
reader: its result is arbitrary.

See docs/glossary.md: constant, carrier.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prunec.graph.channels.layouts import NAN, along
from prunec.graph.channels.operators.kernel import Kernel
from prunec.graph.channels.structure import Structure
from prunec.graph.channels.weights import Weights
from prunec.graph.removal.constants import Constants
from prunec.graph.removal.liveness import Liveness


@dataclass(frozen=True)
class ConstantInputs:
    """Constants that a kernel reads, each a·P + b·Q, shape (I,); NaN for other inputs.

    Attributes:
        inside: a.
        border: b.
        whole: whether P + Q = 1.
    """

    inside: Tensor
    border: Tensor
    whole: bool


def fold(
    structure: Structure, weights: Weights, constants: Constants, alive: Liveness | None = None
) -> bool:
    """Fold constant channels into the kernels that read them; return whether anything changed.

    Args:
        structure: structure of the captured network.
        weights: weights of the network, changed in place.
        constants: constants of the network.
        alive: liveness; unread filters do not count as readers. None while it is not known: all
            filters count.
    """
    captured = structure.captured
    readers: dict[str, list[Kernel]] = {}
    for kernel in structure.of(Kernel).values():
        readers.setdefault(kernel.weight, []).append(kernel)
    changed = False
    for uses in readers.values():
        if _own(structure, uses):
            inputs = _agreed(uses, constants)
            border = [kernel.border for kernel in uses if kernel.border is not None]
            one = replace(
                uses[0],
                border=torch.stack(border).any(0) if border else None,
                room=uses[0].room if len({_settings(kernel) for kernel in uses}) == 1 else None,
            )
            filters = torch.tensor(True) if alive is None else alive.filters(uses)
            changed |= _fold_kernel(one, weights, inputs, filters.expand(len(one.outputs)))
    owners = Counter(name for op in structure.operators.values() for name in op.owned)
    for operator in structure.operators.values():
        # A shared weight may not change for one of its readers alone.
        if all(owners[name] == len(captured.readers(name)) == 1 for name in operator.owned):
            changed |= operator.fold(constants.known, weights)
    return changed


def _settings(kernel: Kernel) -> str:
    """Return the arguments of a call: one module can hold the weight for equal settings only."""
    named = kernel.node.arguments
    return repr([(key, value) for key, value in named.items() if value is not kernel.source])


def _own(structure: Structure, uses: list[Kernel]) -> bool:
    """Return whether these calls are the only readers of their weight and bias."""
    calls = {kernel.node for kernel in uses}
    names = {kernel.weight for kernel in uses} | {kernel.bias for kernel in uses}
    one_bias = len({kernel.bias for kernel in uses}) == 1
    return one_bias and all(structure.captured.readers(n) <= calls for n in names if n is not None)


def constants_read(kernel: Kernel, constants: Constants) -> ConstantInputs:
    """Return the constants among the channels that a kernel reads."""
    source, size = kernel.source, len(kernel.inputs)
    uneven = constants.borders.get(source)
    if kernel.places_differ:
        values = along(constants.known[source], kernel.axis, size)
        values = torch.where(values == 0, values, NAN)
        return ConstantInputs(values, values, True)
    if uneven is None:
        values = along(constants.known[source], kernel.axis, size)
        return ConstantInputs(values, values, True)
    inside, border = (along(x, kernel.axis, size) for x in (uneven.inside, uneven.border))
    return ConstantInputs(inside, border, uneven.whole)


def _agreed(uses: list[Kernel], constants: Constants) -> ConstantInputs:
    """Return the constants that are the same for all uses of a kernel."""
    first, *others = (constants_read(kernel, constants) for kernel in uses)
    inside, border = first.inside, first.border
    for other in others:
        same = (inside == other.inside) & (border == other.border)
        inside, border = torch.where(same, inside, NAN), torch.where(same, border, NAN)
    whole = first.whole and all(other.whole for other in others)
    return ConstantInputs(inside, border, whole)


def _fold_kernel(kernel: Kernel, weights: Weights, inputs: ConstantInputs, filters: Tensor) -> bool:
    """Fold constant inputs into the bias, or into carriers where padding makes them uneven.

    Args:
        kernel: the kernel.
        weights: weights of the network; the kernel's weight and bias are changed.
        inputs: constant inputs.
        filters: whether each filter is read, bool (O,).
    """
    filters = filters.reshape(kernel.groups, -1, 1)
    read = (weights.reads(kernel) & filters).any(1)  # (groups, I/groups)
    values = torch.stack([inputs.inside, inputs.border]).reshape(2, *read.shape)
    known = read & values.isfinite().all(0)
    if not bool(known.any()):
        return False
    nothing = known & (values == 0).all(0)
    rest = known & ~nothing
    # Zeroing is exact in any type, so only sums of constants pay for the conversion to float64.
    weight = weights[kernel.weight] if bool(rest.any()) else weights.stored(kernel.weight)
    matrix = kernel.matrix(weight)
    gone = nothing
    if bool(rest.any()):
        matrix = matrix.clone()
        border = (kernel.at_border(matrix) & filters).any(1)
        free = rest & ~border if inputs.whole else torch.zeros_like(rest)
        gone = nothing | _take_in(kernel, weights, matrix, values, rest, free)
    if not bool(gone.any()):
        return False
    matrix = _without(matrix, gone)
    stored = matrix.transpose(1, 2) if kernel.transposed else matrix
    weights[kernel.weight] = stored.reshape(weight.shape)
    return True


def _without(matrix: Tensor, gone: Tensor) -> Tensor:
    """Return a copy of a matrix with the columns ``gone``, bool (groups, I/groups), set to zero."""
    if len(gone) == 1:  # index_fill is four times as fast as a mask
        return matrix.index_fill(2, torch.nonzero(gone[0]).flatten(), 0.0)
    return matrix.masked_fill(gone[:, None, :, None], 0.0)


def _take_in(
    kernel: Kernel, weights: Weights, matrix: Tensor, values: Tensor, rest: Tensor, free: Tensor
) -> Tensor:
    """Move constants into the bias and into carriers; return which columns became unused.

    Args:
        kernel: the kernel.
        weights: weights of the network; the bias is changed.
        matrix: (groups, O/groups, I/groups, taps), changed in place.
        values: a and b of each column, (2, groups, I/groups).
        rest: columns with constants to fold, bool (groups, I/groups).
        free: columns whose even part may go into the bias, bool (groups, I/groups).
    """
    name = kernel.bias_name
    free = free & torch.tensor(name is not None)
    gone = free & (values[0] == values[1])
    level = torch.where(gone, values[0], 0.0)
    taps = matrix.sum(-1)
    carried = rest & ~gone
    for group in torch.nonzero(carried.sum(1) > 1).flatten().tolist():
        columns = torch.nonzero(carried[group]).flatten()
        shares = _shares(values[:, group, columns], free=bool(free[group, columns].all()))
        # Otherwise nothing would be gained: every constant is its own carrier.
        if len(shares.carriers) < len(columns):
            level[group, columns] = shares.level
            gone[group, columns] = True
            gone[group, columns[shares.carriers]] = False
            merged = torch.einsum("kn,ont->okt", shares.parts, matrix[group][:, columns])
            matrix[group, :, columns[shares.carriers]] = merged
    if name is not None and bool((level != 0).any()):
        added = (taps * level.unsqueeze(1)).sum(-1).reshape(-1)
        weights[name] = weights[name] + added if name in weights else added
    return gone


@dataclass(frozen=True)
class _Shares:
    """Constants as linear combinations of a few carriers plus an even part.

    Attributes:
        carriers: indices of the carriers among n constants, shape (k,).
        parts: coefficients of the carriers, shape (k, n).
        level: remainder of each constant, the same at all positions, shape (n,).
    """

    carriers: Tensor
    parts: Tensor
    level: Tensor


def _shares(values: Tensor, *, free: bool) -> _Shares:
    """Write constants a·P + b·Q, shape (2, n), as combinations of one or two of them.

    Args:
        values: a and b of each constant.
        free: whether an even remainder is allowed.
    """
    a, b = values
    nothing = torch.zeros_like(a)
    # Divide by the largest candidates: small divisors would amplify rounding errors.
    first = int(values.abs().amax(0).argmax())
    main = int(values[:, first].abs().argmax())
    cross = a[first] * b - b[first] * a
    # All (a, b) are multiples of one: cross products of parallel vectors are 0.
    if bool((cross == 0).all()):
        parts = values[main] / values[main, first]
        return _Shares(torch.tensor([first]), parts[None], nothing)
    if free:
        step = a - b
        first = int(step.abs().argmax())
        parts = step / step[first]
        return _Shares(torch.tensor([first]), parts[None], b - parts * b[first])
    second = int(cross.abs().argmax())
    theirs = cross / cross[second]
    mine = (values[main] - theirs * values[main, second]) / values[main, first]
    return _Shares(torch.tensor([first, second]), torch.stack([mine, theirs]), nothing)
