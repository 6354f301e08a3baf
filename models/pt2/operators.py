"""The operators that a ``.pt2`` may call, by name: all others are refused.

The list is text, not drawn from the running torch, so that no other version of it can widen it. Its
base are the operators that torch tags as core; added are those that exported networks hold. A name
alone stands for the overload ``default``; otherwise the overloads follow, separated by commas.

For each family a comment says why no argument makes it read or write outside its tensors. Operators
whose kernels do not check their arguments are left out (`LEFT_OUT` has the core ones among them) or
have their sizes compared before each call (`models.pt2.guards`). None reads or writes files,
starts processes, or calls back into Python. Names with an underscore in front are torch's internal
ones; they stand here one by one, because decompositions hold them.
"""

# One number out for each in (or for each pair, broadcast): sizes are checked by the iterator that
# all of them share.
ELEMENTWISE = """
    __and__.Scalar,Tensor __lshift__.Scalar,Tensor __or__.Scalar,Tensor __rshift__.Scalar,Tensor
    __xor__.Scalar,Tensor abs acos acosh add.Scalar,Tensor addcdiv addcmul alpha_dropout angle
    arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh atan atan2 atanh
    bitwise_and.Scalar,Scalar_Tensor,Tensor bitwise_left_shift.Scalar_Tensor,Tensor,Tensor_Scalar
    bitwise_not bitwise_or.Scalar,Scalar_Tensor,Tensor
    bitwise_right_shift.Scalar_Tensor,Tensor,Tensor_Scalar bitwise_xor.Scalar,Scalar_Tensor,Tensor
    ceil celu clamp.default,Tensor clamp_max.default,Tensor clamp_min.default,Tensor
    clip.default,Tensor complex conj copysign.Scalar,Tensor cos cosh deg2rad digamma
    div.Scalar,Scalar_mode,Tensor,Tensor_mode divide.Scalar,Scalar_mode,Tensor,Tensor_mode dropout
    elu eq.Scalar,Tensor erf erfc erfinv exp exp2 expm1 feature_dropout fill.Scalar,Tensor fix
    float_power.Scalar,Tensor_Scalar,Tensor_Tensor floor floor_divide.default,Scalar fmax fmin
    fmod.Scalar,Tensor frac ge.Scalar,Tensor gelu glu greater.Scalar,Tensor
    greater_equal.Scalar,Tensor gt.Scalar,Tensor hardshrink hardsigmoid hardswish hardtanh
    heaviside hypot imag isclose isfinite isinf isnan isneginf isposinf le.Scalar,Tensor
    leaky_relu lerp.Scalar,Tensor less.Scalar,Tensor less_equal.Scalar,Tensor lgamma log log10
    log1p log2 log_sigmoid logaddexp logaddexp2 logical_and logical_not logical_or logical_xor
    logit lt.Scalar,Tensor masked_fill.Scalar,Tensor maximum minimum mish mul.Scalar,Tensor
    multiply.Scalar,Tensor nan_to_num native_dropout ne.Scalar,Tensor neg negative
    not_equal.Scalar,Tensor polar positive pow.Scalar,Tensor_Scalar,Tensor_Tensor prelu rad2deg
    real reciprocal relu relu6 remainder.Scalar,Scalar_Tensor,Tensor resolve_conj resolve_neg
    round.default,decimals rrelu rsqrt rsub.Scalar,Tensor selu sgn sigmoid sign signbit silu sin
    sinc sinh softplus softshrink special_erf special_erfc special_exp2 special_expit
    special_expm1 special_log1p special_logit special_xlogy.default,other_scalar,self_scalar sqrt
    square sub.Scalar,Tensor subtract.Scalar,Tensor tan tanh threshold true_divide.Scalar,Tensor
    trunc where.default,Scalar,ScalarOther,ScalarSelf,self xlogy.Scalar_Other,Scalar_Self,Tensor
"""

# Along a dimension, which is checked.
REDUCTIONS = """
    _log_softmax _softmax all.default,dim,dims amax amin aminmax any.default,dim,dims argmax
    argmin argsort.default,stable count_nonzero.default,dim_IntList cummax cummin cumprod cumsum
    diff frobenius_norm.dim kthvalue linalg_norm.default,ord_str linalg_vector_norm
    log_softmax.int logcumsumexp logsumexp max.default,dim,other mean.default,dim
    median.default,dim min.default,dim,other msort nanmean nanmedian.default,dim nansum
    norm.Scalar,ScalarOpt_dim,ScalarOpt_dim_dtype,ScalarOpt_dtype nuclear_norm.default,dim
    prod.default,dim_int softmax.int sort.default,stable std.default,correction,dim
    std_mean.default,correction,dim sum.default,dim_IntList topk trapezoid.dx,x
    var.default,correction,dim var_mean.default,correction,dim
"""

# Other sizes over the same numbers, or copies of them: sizes are checked against the storage.
SHAPES = """
    _to_copy _unsafe_view adjoint alias atleast_1d.default,Sequence atleast_2d.default,Sequence
    atleast_3d.default,Sequence block_diag broadcast_tensors broadcast_to cat channel_shuffle
    chunk clone column_stack concat concatenate constant_pad_nd contiguous copy detach diag
    diag_embed diagonal diagonal_scatter dsplit.array,int dstack expand expand_as expand_copy
    flatten.using_ints flip fliplr flipud hsplit.array,int hstack lift_fresh lift_fresh_copy mH mT
    matrix_H meshgrid.default,indexing moveaxis.int,intlist movedim.int,intlist
    narrow.default,Tensor native_channel_shuffle numpy_T pad permute permute_copy pixel_shuffle
    pixel_unshuffle ravel reflection_pad1d reflection_pad2d reflection_pad3d repeat
    repeat_interleave.self_int replication_pad1d replication_pad2d replication_pad3d reshape
    reshape_as roll rot90 select.int select_copy.int select_scatter slice.Tensor slice_copy.Tensor
    slice_scatter split.Tensor,sizes split_copy.Tensor split_with_sizes split_with_sizes_copy
    squeeze.default,dim,dims squeeze_copy.default,dim,dims stack swapaxes swapdims t
    tensor_split.indices,sections,tensor_indices_or_sections tile
    to.device,dtype,dtype_layout,other transpose.int transpose_copy.int tril triu type_as
    unbind.int unflatten.int unfold unsafe_chunk unsafe_split.Tensor unsafe_split_with_sizes
    unsqueeze unsqueeze_copy view.default,dtype view_as view_as_complex view_as_real
    view_copy.default,dtype vsplit.array,int vstack
"""

# Every index is compared with the size before it is used (also by those called unsafe, which on
# their own are the checked ones; only compilers skip it).
INDEXING = """
    _unsafe_index.Tensor _unsafe_index_put bucketize.Scalar,Tensor embedding gather index.Tensor
    index_add index_copy index_fill.int_Scalar,int_Tensor index_put index_select masked_scatter
    masked_select nonzero one_hot scatter.reduce,src,value,value_reduce scatter_add
    scatter_reduce.two take take_along_dim
"""

# Sizes are compared before the multiplication.
PRODUCTS = """
    _cdist_forward addbmm addmm.default,dtype addmv addr baddbmm.default,dtype bilinear
    bmm.default,dtype cdist chain_matmul cosine_similarity cross dot einsum ger inner kron
    linalg_cross linalg_matmul linalg_multi_dot linalg_vecdot linear matmul mm.default,dtype mv
    outer pairwise_distance pdist tensordot trace vdot
"""

# Sizes of weights, windows and padding are compared first, by torch or, for those in
# `models.pt2.guards`, by us. Of upsampling only the form that takes either sizes or factors.
LAYERS = """
    _adaptive_avg_pool2d _adaptive_avg_pool3d _native_batch_norm_legit.default,no_stats
    _native_batch_norm_legit_no_training _scaled_dot_product_flash_attention_for_cpu
    _upsample_bicubic2d_aa.vec _upsample_bilinear2d_aa.vec _upsample_nearest_exact1d.vec
    _upsample_nearest_exact2d.vec _upsample_nearest_exact3d.vec _weight_norm adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
    adaptive_max_pool3d affine_grid_generator avg_pool1d avg_pool2d avg_pool3d batch_norm col2im
    conv1d.default,padding conv2d.default,padding conv3d.default,padding conv_transpose1d
    conv_transpose2d.input conv_transpose3d.input convolution grid_sampler grid_sampler_2d
    grid_sampler_3d group_norm gru.input gru_cell im2col instance_norm layer_norm lstm.input
    lstm_cell max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d
    max_pool3d_with_indices max_unpool2d max_unpool3d native_group_norm native_layer_norm rms_norm
    rnn_relu.input rnn_relu_cell rnn_tanh.input rnn_tanh_cell scaled_dot_product_attention
    upsample_bicubic2d.vec upsample_bilinear2d.vec upsample_linear1d.vec upsample_nearest1d.vec
    upsample_nearest2d.vec upsample_nearest3d.vec upsample_trilinear3d.vec
"""

# Lengths are compared with the input.
FOURIER = """
    _fft_c2c _fft_c2r _fft_r2c fft_fft fft_fft2 fft_fftfreq fft_fftn fft_fftshift fft_hfft
    fft_ifft fft_ifft2 fft_ifftn fft_ifftshift fft_ihfft fft_irfft fft_irfft2 fft_irfftn fft_rfft
    fft_rfft2 fft_rfftfreq fft_rfftn
    hamming_window.default,periodic,periodic_alpha,periodic_alpha_beta
    hann_window.default,periodic istft stft.default,center
"""

# New tensors, of sizes that are capped (`approxifer.models.pt2.nodes`); none left uninitialised.
CREATION = """
    arange.default,start,start_step eye.default,m full full_like linspace new_full new_ones
    new_zeros ones ones_like rand rand_like randn randn_like randperm scalar_tensor tril_indices
    triu_indices zeros zeros_like
"""

# Sizes as numbers, and assertions about them.
SIZES = """
    _assert_async.default,msg _assert_scalar _assert_tensor_metadata _local_scalar_dense item
    sym_constrain_range sym_constrain_range_for_size sym_is_contiguous sym_numel sym_size.int
    sym_storage_offset sym_stride.int
"""

# As above, into their own first tensor, whose size they do not change.
IN_PLACE = """
    abs_ add_.Scalar,Tensor addcdiv_ addcmul_ alpha_dropout_ bitwise_and_.Scalar,Tensor
    bitwise_not_ bitwise_or_.Scalar,Tensor ceil_ celu_ clamp_.default,Tensor
    clamp_max_.default,Tensor clamp_min_.default,Tensor copy_ cos_ cumsum_ detach_
    div_.Scalar,Scalar_mode,Tensor,Tensor_mode dropout_ elu_ eq_.Scalar,Tensor exp_ expm1_
    feature_dropout_ fill_.Scalar,Tensor floor_ floor_divide_.Scalar,Tensor ge_.Scalar,Tensor
    gt_.Scalar,Tensor hardsigmoid_ hardswish_ hardtanh_ index_add_ index_copy_
    index_fill_.int_Scalar,int_Tensor index_put_ le_.Scalar,Tensor leaky_relu_ lerp_.Scalar,Tensor
    log1p_ log2_ log_ logical_and_ logical_not_ logical_or_ lt_.Scalar,Tensor
    masked_fill_.Scalar,Tensor masked_scatter_ mish_ mul_.Scalar,Tensor nan_to_num_
    ne_.Scalar,Tensor neg_ pow_.Scalar,Tensor reciprocal_ relu6_ relu_ remainder_.Scalar,Tensor
    round_.default,decimals rsqrt_ scatter_.reduce,src,value,value_reduce scatter_add_
    scatter_reduce_.two selu_ sigmoid_ sign_ silu_ sin_ sqrt_ square_ squeeze_.default,dim,dims
    sub_.Scalar,Tensor t_ tanh_ threshold_ transpose_ tril_ triu_ trunc_ unsqueeze_ zero_
"""

#: Core operators that are refused, and why.
LEFT_OUT = {
    "as_strided.default": "views any part of a storage, other rows included",
    "resize_.default": "shows uninitialised memory",
    "empty.memory_format": "shows uninitialised memory",
    "empty_strided.default": "shows uninitialised memory",
    "atan2.out": "writes into and resizes a tensor that it is given",
    "_embedding_bag.default": "its sums run from one offset to the next without a check",
    "_pdist_forward.default": "does not check the dimensions of its input",
    **dict.fromkeys(
        (
            "_adaptive_avg_pool2d_backward.default",
            "avg_pool2d_backward.default",
            "convolution_backward.default",
            "embedding_dense_backward.default",
            "max_pool2d_with_indices_backward.default",
            "native_group_norm_backward.default",
            "native_layer_norm_backward.default",
        ),
        "is a gradient that the model takes: some kernels of them use indices without a check",
    ),
}

#: Control flow that exports hold and that ends: `cond` takes one of two branches, the others set a
#: mode around one graph. A ``while_loop`` may never end; scans are rare, and left out with it.
HIGHER_ORDER = frozenset(
    f"torch.ops.higher_order.{name}"
    for name in ("cond", "wrap_with_set_grad_enabled", "wrap_with_autocast")
)
#: Arithmetic of sizes, without powers and left shifts, whose results have no bound.
ARITHMETIC = """
    torch.sym_int torch.sym_float torch.sym_ite torch.sym_max torch.sym_min torch.sym_not
    torch.sym_sqrt torch.sym_sum math.ceil math.floor math.trunc _operator.eq _operator.ne
    _operator.le _operator.ge _operator.lt _operator.gt _operator.neg _operator.pos _operator.mul
    _operator.add _operator.sub _operator.floordiv _operator.mod _operator.truediv _operator.and_
    _operator.or_ _operator.not_ _operator.abs _operator.getitem
"""
SYMBOLIC = frozenset(ARITHMETIC.split())


def _read(*families: str) -> frozenset[str]:
    """Return ``packet.overload`` for all words of the families."""
    names = set()
    for word in " ".join(families).split():
        packet, _, overloads = word.partition(".")
        names |= {f"{packet}.{overload}" for overload in (overloads or "default").split(",")}
    return frozenset(names)


#: All of ATen that is allowed, as ``packet.overload``.
ATEN = _read(
    ELEMENTWISE, REDUCTIONS, SHAPES, INDEXING, PRODUCTS, LAYERS, FOURIER, CREATION, SIZES, IN_PLACE
)


def allowed(target: str) -> bool:
    """Tell whether a node of a graph may call this."""
    name = target.removeprefix("torch.ops.aten.")
    return (name != target and name in ATEN) or target in SYMBOLIC or target in HIGHER_ORDER
