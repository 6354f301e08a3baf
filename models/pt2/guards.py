"""Checks before those operators whose kernels use their arguments unchecked.

Torch's CPU kernels of attention, batch and weight normalisation and recurrent layers take sizes of
one tensor from another: a crafted program made them read behind a tensor's end (torch 2.13). Sizes
are known only when the program runs, so each such node gets a node in front that compares them.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from approxifer.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def guard(module: "torch.nn.Module") -> None:
    """Put checks into a loaded program, its branches included.

    Parameters
    ----------
    module : torch.fx.GraphModule
        It is changed.
    """
    import torch

    for part in module.modules():
        if not isinstance(part, torch.fx.GraphModule):
            continue
        for node in list(part.graph.nodes):
            check = CHECKS.get(str(node.target)) if node.op == "call_function" else None
            if check is not None:
                with part.graph.inserting_before(node):
                    part.graph.call_function(check, node.args, node.kwargs)
        part.recompile()


def _require(held: bool, what: str) -> None:
    if not held:
        raise ModelError(
            f"the program's {what} does not fit its input or its weights. Export the module again,"
            " and do not change the file."
        )


def attention(query: "Tensor", key: "Tensor", value: "Tensor", *_: Any, **__: Any) -> None:
    """Compare keys with values, and with queries."""
    fits = min(query.ndim, key.ndim, value.ndim) >= 2 and (
        query.shape[-1] == key.shape[-1] and key.shape[-2] == value.shape[-2]
    )
    _require(fits, "attention (scaled_dot_product_attention)")


def flash_attention(
    query: "Tensor", key: "Tensor", value: "Tensor", *_: Any, **options: Any
) -> None:
    """Compare all sizes of keys, values and the mask."""
    mask = options.get("attn_mask")
    fits = query.ndim == key.ndim == 4 and key.shape == value.shape
    fits = fits and query.shape[:2] == key.shape[:2] and query.shape[3] == key.shape[3]
    if fits and mask is not None:
        full = (*query.shape[:3], key.shape[2])
        fits = mask.ndim in (2, 4) and all(
            size in (1, whole) for size, whole in zip(mask.shape[::-1], full[::-1], strict=False)
        )
    _require(fits, "attention (flash attention)")


def batch_norm(rows: "Tensor", *others: Any, **options: Any) -> None:
    """Compare weights and statistics with the channels."""
    vectors = [v for v in (*others, *options.values()) if hasattr(v, "numel")]
    fits = rows.ndim >= 2 and all(v.numel() == rows.shape[1] for v in vectors)
    _require(fits, "batch normalisation")


def weight_norm(weight: "Tensor", scale: "Tensor", dim: int = 0) -> None:
    """Compare the scale with the dimension that is kept."""
    wanted = [size if d == dim else 1 for d, size in enumerate(weight.shape)]
    fits = 0 <= dim < weight.ndim and list(scale.shape) == wanted and weight.numel() > 0
    _require(fits, "weight normalisation")


def lstm(rows: "Tensor", hx: "Sequence[Tensor]", *options: Any, **named: Any) -> None:
    """Compare both states and all weights of an LSTM with the rows."""
    _require(len(hx) == 2, "lstm")
    _recurrent(rows, hx, 4, *options, **named)


def gru(rows: "Tensor", hx: "Tensor", *options: Any, **named: Any) -> None:
    """Compare the state and all weights of a GRU with the rows."""
    _recurrent(rows, [hx], 3, *options, **named)


def rnn(rows: "Tensor", hx: "Tensor", *options: Any, **named: Any) -> None:
    """Compare the state and all weights of a plain recurrent layer with the rows."""
    _recurrent(rows, [hx], 1, *options, **named)


def _recurrent(
    rows: "Tensor",
    states: "Sequence[Tensor]",
    gates: int,
    params: "Sequence[Tensor]",
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> None:
    """Compare sizes as the layers use them: see torch.nn.LSTM for the order of its weights."""
    name = "recurrent layer"
    ways = 2 if bidirectional else 1
    count, plain = num_layers * ways, 4 if has_biases else 2
    _require(rows.ndim == 3 and all(s.ndim == 3 for s in states) and num_layers > 0, name)
    hidden, out = states[-1].shape[2], states[0].shape[2]
    each = plain + (out != hidden)  # a projection comes last
    batch = rows.shape[0 if batch_first else 1]
    _require(all(tuple(s.shape[:2]) == (count, batch) for s in states), name)
    _require(len(params) == count * each, name)
    for place in range(count):
        wide = rows.shape[2] if place < ways else out * ways
        wanted: list[tuple[int, ...]] = [(gates * hidden, wide), (gates * hidden, out)]
        wanted += [(gates * hidden,)] * (plain - 2) + [(out, hidden)] * (each - plain)
        given = [tuple(p.shape) for p in params[place * each : (place + 1) * each]]
        _require(given == wanted, name)


def grid_sampler(
    rows: "Tensor", grid: "Tensor", interpolation_mode: int, padding_mode: int, *_: Any, **__: Any
) -> None:
    """Refuse modes that no kernel has: their output would be uninitialised."""
    _require(interpolation_mode in (0, 1, 2) and padding_mode in (0, 1, 2), "grid_sampler")


def fourier(rows: "Tensor", dim: Sequence[int], *_: Any, **__: Any) -> None:
    """Refuse dimensions that are not there: torch's callers of it have made them positive."""
    fits = all(0 <= d < rows.ndim for d in dim) and 0 < len(set(dim)) == len(dim)
    _require(fits, "fft")


def division(a: "Tensor", b: Any, *_: Any, rounding_mode: str | None = None) -> None:
    """Refuse whole numbers that are rounded to zero: the smallest, over -1, ends the process."""
    import torch

    whole = not (torch.result_type(a, b).is_floating_point or a.is_complex())
    _require(not (whole and rounding_mode == "trunc"), "division with rounding_mode='trunc'")


CHECKS: dict[str, Callable[..., None]] = {
    "aten.scaled_dot_product_attention.default": attention,
    "aten._scaled_dot_product_flash_attention_for_cpu.default": flash_attention,
    "aten._native_batch_norm_legit.default": batch_norm,
    "aten._native_batch_norm_legit.no_stats": batch_norm,
    "aten._native_batch_norm_legit_no_training.default": batch_norm,
    "aten._weight_norm.default": weight_norm,
    "aten.lstm.input": lstm,
    "aten.gru.input": gru,
    "aten.rnn_tanh.input": rnn,
    "aten.rnn_relu.input": rnn,
    "aten.grid_sampler.default": grid_sampler,
    "aten.grid_sampler_2d.default": grid_sampler,
    "aten.grid_sampler_3d.default": grid_sampler,
    "aten._fft_c2c.default": fourier,
    "aten._fft_c2r.default": fourier,
    "aten._fft_r2c.default": fourier,
    **{
        f"aten.{name}.{kind}_mode": division
        for name in ("div", "div_", "divide")
        for kind in ("Tensor", "Scalar")
    },
}
