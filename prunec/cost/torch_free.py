"""ATen and torchvision operators without MACs, by the unit's definition.

They move, create, compare or count values, act on each value alone, add values up, or take their
mean, spread, norm or order. None multiplies a weight with an activation or sums products of two
activations, except element by element, which the ONNX counter treats alike.
"""

from __future__ import annotations

_MOVED = """
    alias as_strided atleast_1d atleast_2d atleast_3d block_diag broadcast_tensors broadcast_to cat
    channel_shuffle chunk clone col2im column_stack concat concatenate contiguous copy
    constant_pad_nd detach diag diag_embed diagflat diagonal diagonal_scatter dsplit dstack
    as_strided_scatter embedding embedding_renorm expand expand_as flatten flip fliplr flipud gather
    getitem hsplit hstack im2col index index_copy index_fill index_put index_select item lift
    lift_fresh mH mT masked_fill masked_scatter masked_select matrix_H meshgrid moveaxis movedim
    narrow native_channel_shuffle numpy_T adjoint pad pad_sequence permute pin_memory pixel_shuffle
    pixel_unshuffle put ravel reflection_pad1d reflection_pad2d reflection_pad3d repeat
    repeat_interleave replication_pad1d replication_pad2d replication_pad3d reshape reshape_as
    resize resolve_conj resolve_neg roll rot90 row_stack scatter select select_scatter slice
    slice_inverse slice_scatter split split_with_sizes squeeze stack swapaxes swapdims t take
    take_along_dim tensor_split tile to to_dense transpose tril triu type_as unbind unflatten unfold
    unsafe_chunk unsafe_split unsafe_split_with_sizes unsqueeze values view view_as view_as_complex
    view_as_real vsplit vstack where _assert_async _assert_scalar _assert_tensor_metadata _conj
    _pack_padded_sequence _pad_circular _pad_enum _pad_packed_sequence _reshape_alias
    _reshape_from_tensor _to_copy _unsafe_index _unsafe_index_put _unsafe_masked_index _unsafe_view
    cartesian_prod combinations data dequantize int_repr real imag
"""

_MADE = """
    arange bartlett_window bernoulli binomial blackman_window cauchy empty empty_like empty_permuted
    empty_strided exponential eye fill full full_like geometric hamming_window hann_window
    kaiser_window linspace log_normal logspace multinomial new_empty new_empty_strided new_full
    new_ones new_zeros normal normal_functional ones ones_like one_hot poisson rand rand_like
    randint randint_like randn randn_like random randperm range scalar_tensor tril_indices
    triu_indices uniform zero zeros zeros_like vander
"""

_EACH = """
    abs absolute acos acosh add addcdiv addcmul alpha_dropout angle arccos arccosh arcsin arcsinh
    arctan arctan2 arctanh asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_not
    bitwise_or bitwise_right_shift bitwise_xor bucketize ceil celu chalf clamp clamp_max clamp_min
    clip complex conj conj_physical copysign cos cosh cross deg2rad digamma div divide dropout elu
    eq erf erfc erfinv exp exp2 expm1 feature_alpha_dropout feature_dropout fix float float_power
    floor floor_divide fmax fmin fmod frac frexp gcd ge gelu ger glu greater greater_equal gt
    hardshrink hardsigmoid hardswish hardtanh heaviside hypot i0 igamma igammac isclose isfinite
    isin isinf isnan isneginf isposinf isreal kron lcm ldexp le leaky_relu lerp less less_equal
    lgamma log log10 log1p log2 log_sigmoid log_sigmoid_forward logaddexp logaddexp2 logical_and
    logical_not logical_or logical_xor logit lt maximum minimum mish mul multiply mvlgamma
    nan_to_num native_dropout ne neg negative nextafter not_equal outer polar polygamma positive pow
    prelu rad2deg reciprocal relu relu6 remainder round rrelu rrelu_with_noise rsqrt rsub
    searchsorted selu sgn sigmoid sign signbit silu sin sinc sinh softplus softshrink sqrt square
    sub subtract tan tanh threshold true_divide trunc xlogy bool double half int long
    fake_quantize_per_channel_affine fake_quantize_per_channel_affine_cachemask
    fake_quantize_per_tensor_affine fake_quantize_per_tensor_affine_cachemask quantize_per_channel
    quantize_per_tensor quantize_per_tensor_dynamic _weight_norm _weight_norm_interface
"""

_GATHERED = """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
    adaptive_max_pool2d adaptive_max_pool3d all allclose amax amin aminmax any argmax argmin argsort
    argwhere avg_pool1d avg_pool2d avg_pool3d batch_norm bincount binary_cross_entropy
    binary_cross_entropy_with_logits cosine_embedding_loss cosine_similarity count_nonzero
    cross_entropy_loss cummax cummin cumprod cumsum cumulative_trapezoid diff dist embedding_bag
    equal fractional_max_pool2d fractional_max_pool3d frobenius_norm gradient grid_sampler
    grid_sampler_2d grid_sampler_3d group_norm hinge_embedding_loss histc histogram huber_loss
    index_add index_reduce instance_norm kl_div kthvalue l1_loss layer_norm linalg_cross
    linalg_diagonal linalg_matrix_norm linalg_norm linalg_vecdot linalg_vector_norm log_softmax
    logcumsumexp logsumexp margin_ranking_loss max max_pool1d max_pool1d_with_indices max_pool2d
    max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool2d max_unpool3d mean median
    min mode mse_loss msort nanmean nanmedian nanquantile nansum native_batch_norm native_group_norm
    native_layer_norm nll_loss nll_loss2d nll_loss_nd nonzero nonzero_numpy nonzero_static norm
    norm_except_dim numel pairwise_distance prod quantile renorm rms_norm scatter_add scatter_reduce
    segment_reduce size smooth_l1_loss soft_margin_loss softmax sort std std_mean sum sum_to_size
    topk trace trapezoid trapz triplet_margin_loss unique_consecutive unique_dim
    unique_dim_consecutive upsample_bicubic2d upsample_bilinear2d upsample_linear1d
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d var var_mean
    _adaptive_avg_pool2d _adaptive_avg_pool3d _batch_norm_no_update _embedding_bag
    _embedding_bag_forward_only _fused_rms_norm _is_all_true _is_any_true _local_scalar_dense
    _log_softmax _native_batch_norm_legit _native_batch_norm_legit_no_training _safe_softmax
    _softmax _unique _unique2 _upsample_bicubic2d_aa _upsample_bilinear2d_aa
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
    nms ps_roi_align ps_roi_pool roi_align roi_pool
"""

_FREE = frozenset(f"{_MOVED} {_MADE} {_EACH} {_GATHERED}".split())


def counts_nothing(operator: str) -> bool:
    """Return whether an operator has no MACs.

    In-place and copying variants count like their plain operator; special functions act on each
    value alone.
    """
    plain = operator.removesuffix("_").removesuffix("_copy")
    return operator in _FREE or plain in _FREE or operator.startswith(("special_", "sym_"))
