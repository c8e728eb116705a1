"""Names of operators that a front end must distinguish before any analysis."""

from __future__ import annotations

# Operators whose result at a position depends on the operands at that position alone.
ELEMENTWISE = frozenset(
    (
        "relu relu6 hardtanh sigmoid silu hardswish hardsigmoid gelu tanh softplus softsign elu "
        "selu celu leaky_relu mish logsigmoid clamp clamp_min clamp_max clip neg exp log abs sqrt "
        "rsqrt square pow reciprocal erf sin cos floor ceil round sign add sub rsub mul div "
        "maximum minimum threshold hardshrink softshrink where masked_fill expm1 "
        "log1p tan atan sinh cosh erfc trunc frac exp2 log2 sgn atan2 fmod remainder lerp "
        "gt lt ge le eq ne logical_and logical_or logical_not logical_xor bitwise_and bitwise_or "
        "bitwise_not bitwise_xor isnan isinf isfinite isposinf isneginf nan_to_num addcmul addcdiv "
        "hypot heaviside copysign logaddexp logaddexp2 xlogy log10 acos asin acosh atanh logit "
        "sinc erfinv lgamma digamma fmin fmax float_power deg2rad rad2deg log_sigmoid absolute "
        "true_divide floor_divide __and__ __or__ __xor__ fake_quantize_per_tensor_affine"
    ).split()
)
FACTORIES = frozenset("zeros ones full new_zeros new_ones new_full".split())
CONVOLUTIONS = frozenset(
    ("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d").split()
)
