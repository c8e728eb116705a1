"""What the analyses know of ATen operators: a few families, by name.

An operator that stands in no family is not understood: whatever it reads is pinned, with the
operator's name as the reason. A family is a promise about values, so a name belongs here only if
the promise holds for every overload.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from torch.fx import Node

# The value of a position depends on that position alone, of one tensor or of several.
ELEMENTWISE = frozenset(
    (
        "relu relu6 hardtanh sigmoid silu hardswish hardsigmoid gelu tanh softplus softsign elu "
        "selu celu leaky_relu mish logsigmoid clamp clamp_min clamp_max clip neg exp log abs sqrt "
        "rsqrt square pow reciprocal erf sin cos floor ceil round sign add sub rsub mul div "
        "maximum minimum threshold hardshrink softshrink where masked_fill expm1 "
        "log1p tan atan sinh cosh erfc trunc frac exp2 log2 sgn atan2 fmod remainder lerp"
    ).split()
)
# Positions are moved, repeated or left out, never changed: they act on integers as on values.
MOVES = frozenset(
    (
        "view reshape _unsafe_view flatten unflatten permute transpose t movedim swapaxes squeeze "
        "unsqueeze expand cat concat stack chunk split split_with_sizes tensor_split "
        "slice select narrow index_select index unbind roll flip repeat repeat_interleave tile "
        "channel_shuffle getitem numpy_T mT native_channel_shuffle adjoint"
    ).split()
)
# The same tensor again.
IDENTITY = frozenset(
    (
        "contiguous clone alias detach lift_fresh_copy dropout feature_dropout alpha_dropout "
        "feature_alpha_dropout to _to_copy type_as float"
    ).split()
)
# Windows over the trailing axes, each channel by itself.
WINDOWS = frozenset(
    (
        "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
        "adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d upsample_nearest1d "
        "upsample_nearest2d upsample_nearest3d upsample_bilinear2d upsample_linear1d "
        "upsample_trilinear3d upsample_bicubic2d _upsample_nearest_exact2d"
    ).split()
)
REDUCTIONS = frozenset(("mean sum amax amin").split())
# Values along some axes are mixed among themselves, whatever stands elsewhere.
WITHIN = frozenset(
    (
        "softmax _softmax log_softmax _log_softmax layer_norm native_layer_norm rms_norm cumsum "
        "linalg_vector_norm"
    ).split()
)
# One number everywhere, in the shape of the tensor that is given.
LIKES = frozenset("zeros_like ones_like full_like zero fill".split())
FACTORIES = frozenset("zeros ones full new_zeros new_ones new_full".split())
PADS = frozenset(("pad constant_pad_nd reflection_pad2d replication_pad2d").split())
CONVOLUTIONS = frozenset(
    ("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d").split()
)

# Moves that see the same values in the same order in another shape.
VIEWS = frozenset("view reshape _unsafe_view flatten unflatten squeeze unsqueeze".split())
# Axes along which another move acts by its literals; where none is given, it may be any.
MOVE_AXES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys("permute transpose t movedim swapaxes numpy_T mT adjoint stack".split(), ()),
    **dict.fromkeys("cat concat chunk split split_with_sizes tensor_split slice".split(), ("dim",)),
    **dict.fromkeys("select narrow index_select unbind".split(), ("dim",)),
    "flip": ("dims",),
    "roll": ("dims",),
}
# Moves that pick positions by number.
PICKS = frozenset(
    (
        "slice select narrow index_select index split tensor_split split_with_sizes chunk unbind "
        "roll flip"
    ).split()
)


def op_name(node: Node) -> str:
    """Name of the operator of a call, without overload: ``conv2d``, ``add``, ``getitem``."""
    if node.target is operator.getitem:
        return "getitem"
    packet = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(packet, "__name__", packet))


def arguments(node: Node) -> dict[str, Any]:
    """Arguments of a call by the names of the operator's schema, defaults filled in."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {str(i): value for i, value in enumerate(node.args)}
    named: dict[str, Any] = {}
    for i, argument in enumerate(schema.arguments):
        if i < len(node.args):
            named[argument.name] = node.args[i]
        elif argument.name in node.kwargs:
            named[argument.name] = node.kwargs[argument.name]
        else:
            named[argument.name] = argument.default_value if argument.has_default_value() else None
    return named


def single(value: Any, length: int) -> tuple[int, ...]:
    """An integer or a list of integers as a tuple of ``length``."""
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    return tuple(int(v) for v in (items * length if len(items) == 1 else items))
