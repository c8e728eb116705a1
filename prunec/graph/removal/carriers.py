"""Constants taken out of the kernels that read them, exactly.

A constant channel that a kernel reads can be taken out of it without changing the output:

- c = 0: the kernel's column does nothing and becomes zero;
- no padding: Σ_taps W[:, i]·c_i moves into the bias;
- padding (the sum differs at the border): of all constant channels of one reader one, the *carrier*
  k, takes the others in, W'[:, k] = Σ_i (c_i / c_k)·W[:, i];
- behind an average pooling that counts its padding: likewise, it makes of all constants the same
  pattern.

What is left of the constant channels is unread, and liveness removes it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.layouts import along
from prunec.graph.channels.operator import Known
from prunec.graph.channels.operators.kernel import Kernel
from prunec.graph.channels.operators.window import Window
from prunec.graph.channels.structure import Structure
from prunec.graph.channels.weights import Weights


def fold(structure: Structure, weights: Weights, known: Known) -> bool:
    """Take constant channels out of the kernels that read them; whether anything changed."""
    captured = structure.captured
    readers: dict[str, list[Kernel]] = {}
    for kernel in structure.of(Kernel).values():
        readers.setdefault(kernel.weight, []).append(kernel)
    changed = False
    for uses in readers.values():
        if _own(structure, uses):
            values, even = _agreed(structure, uses, known)
            border = [kernel.border for kernel in uses if kernel.border is not None]
            one = replace(
                uses[0],
                border=torch.stack(border).any(0) if border else None,
                room=uses[0].room if len({_settings(kernel) for kernel in uses}) == 1 else None,
            )
            changed |= _fold_kernel(one, weights, values, even)
    owners = Counter(name for op in structure.operators.values() for name in op.owned)
    for operator in structure.operators.values():
        if all(owners[name] == len(captured.readers(name)) == 1 for name in operator.owned):
            changed |= operator.fold(known, weights)
    return changed


def _settings(kernel: Kernel) -> str:
    """How a kernel is called: one module may hold the weight for all calls of the same settings."""
    named = kernel.node.arguments
    return repr([(key, value) for key, value in named.items() if value is not kernel.source])


def _own(structure: Structure, uses: list[Kernel]) -> bool:
    """Whether no one but these uses of a kernel reads its weight and its bias."""
    calls = {kernel.node for kernel in uses}
    names = {kernel.weight for kernel in uses} | {kernel.bias for kernel in uses}
    one_bias = len({kernel.bias for kernel in uses}) == 1
    return one_bias and all(structure.captured.readers(n) <= calls for n in names if n is not None)


def _agreed(structure: Structure, uses: list[Kernel], known: Known) -> tuple[Tensor, bool]:
    """The constants that all uses of a kernel read alike, NaN for others; whether they are even."""
    found = [_before_padded_average(structure, kernel.source) for kernel in uses]
    first, *others = (
        along(known[source], kernel.axis, len(kernel.inputs))
        for (source, _), kernel in zip(found, uses, strict=True)
    )
    for values in others:
        first = torch.where(values == first, first, float("nan"))
    return first, all(even for _, even in found)


def _before_padded_average(structure: Structure, node: Node) -> tuple[Node, bool]:
    """What an average pooling that counts its padding reads, and that it is not even; else itself.

    Of a constant it makes less at the border, of every constant in the same proportion.
    """
    operator = structure.operators.get(node)
    if isinstance(operator, Window) and not operator.uniform:
        return operator.source, False
    return node, True


def _fold_kernel(kernel: Kernel, weights: Weights, values: Tensor, even: bool) -> bool:
    """Take constant inputs out of a kernel; by carriers if they are not even over the positions."""
    groups = kernel.groups
    read = weights.reads(kernel).any(1)  # (groups, I/groups)
    constant = values.reshape(groups, -1)
    known = read & ~constant.isnan()
    if not bool(known.any()):
        return False
    nothing = known & (constant == 0)
    rest = known & ~nothing
    # Zeroing is exact in any type; sums of constants are computed in float64.
    weight = weights[kernel.weight] if bool(rest.any()) else weights.stored(kernel.weight)
    matrix = kernel.matrix(weight)
    gone = nothing
    if bool(rest.any()):
        matrix = matrix.clone()
        name = kernel.bias_name
        uniform = rest & ~kernel.at_border(matrix).any(1)
        if name is None or not even:
            uniform = torch.zeros_like(rest)
        if name is not None and bool(uniform.any()):
            shift = torch.where(uniform, constant, 0.0).unsqueeze(1)
            added = (matrix.sum(-1) * shift).sum(-1).reshape(-1)
            weights[name] = weights[name] + added if name in weights else added
        gone = nothing | uniform | _carry(matrix, constant, rest & ~uniform)
    if not bool(gone.any()):
        return False
    matrix = matrix.masked_fill(gone[:, None, :, None], 0.0)
    stored = matrix.transpose(1, 2) if kernel.transposed else matrix
    weights[kernel.weight] = stored.reshape(weight.shape)
    return True


def _carry(matrix: Tensor, constant: Tensor, rest: Tensor) -> Tensor:
    """Add the constant columns of each group into its carrier's; which columns are free now."""
    gone = torch.zeros_like(rest)
    for group in torch.nonzero(rest.sum(1) > 1).flatten().tolist():
        columns = torch.nonzero(rest[group]).flatten()
        values = constant[group, columns]
        carrier = int(values.abs().argmax())
        ratio = values / values[carrier]
        merged = (matrix[group][:, columns] * ratio[None, :, None]).sum(1)
        matrix[group, :, columns[carrier]] = merged
        gone[group, columns] = True
        gone[group, columns[carrier]] = False
    return gone
