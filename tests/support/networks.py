"""Some sixty small networks, each with rows that it takes: what people export."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

Tensor = torch.Tensor
Network = Callable[[], nn.Module]


class Fn(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 2, 1), nn.SiLU(inplace=True),
            nn.Conv2d(2, channels, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class UNet(nn.Module):
    def __init__(self, learned: bool) -> None:
        super().__init__()
        self.down, self.deep = block(1, 4), block(4, 8)
        self.wider = nn.ConvTranspose2d(8, 4, 2, stride=2) if learned else nn.Conv2d(8, 4, 1)
        self.learned, self.up, self.head = learned, block(8, 4), nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        side = self.down(x)
        deep = self.wider(self.deep(F.max_pool2d(side, 2)))
        if not self.learned:
            deep = F.interpolate(deep, size=side.shape[2:], mode="bilinear", align_corners=False)
        return self.head(self.up(torch.cat([side, deep], dim=1)))


class Recurrent(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.net(x)
        return out[:, -1]


class Attention(nn.Module):
    def __init__(self, causal: bool = False) -> None:
        super().__init__()
        self.net, self.causal = nn.MultiheadAttention(8, 2, batch_first=True), causal

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        mask = torch.triu(torch.full((length, length), float("-inf")), 1) if self.causal else None
        return self.net(x, x, x, attn_mask=mask, need_weights=False)[0]


class Rotary(nn.Module):
    """Grouped-query attention with rotary positions and RMSNorm, as language models have it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.q, self.kv = nn.RMSNorm(16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.register_buffer("rate", 10000 ** (-torch.arange(0, 4, 2).float() / 4))

    def turn(self, x: Tensor) -> Tensor:
        angle = torch.outer(torch.arange(x.shape[2], device=x.device).float(), self.rate)
        even, odd = x[..., ::2], x[..., 1::2]
        cos, sin = angle.cos(), angle.sin()
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q = self.q(h).unflatten(-1, (4, 4)).transpose(1, 2)
        k, v = self.kv(h).unflatten(-1, (4, 4)).transpose(1, 2).chunk(2, dim=1)
        k, v = k.repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1)
        out = F.scaled_dot_product_attention(self.turn(q), self.turn(k), v, is_causal=True)
        return x + out.transpose(1, 2).flatten(2)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.place = nn.Embedding(20, 8, padding_idx=0), nn.Embedding(6, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.table(x) + self.place(torch.arange(x.shape[1], device=x.device))
        seen = (x != 0).unsqueeze(-1)
        return self.head(h.masked_fill(~seen, 0.0).sum(1) / seen.sum(1).clamp(min=1))


class Fourier(nn.Module):
    """A spectral layer: multiplies the lowest modes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 2, 4, 2))

    def forward(self, x: Tensor) -> Tensor:
        modes = torch.fft.rfft(x)
        low = torch.einsum("bim,iom->bom", modes[..., :4], torch.view_as_complex(self.weight))
        kept = F.pad(torch.view_as_real(low), (0, 0, 0, modes.shape[-1] - 4))
        return torch.fft.irfft(torch.view_as_complex(kept), n=x.shape[-1])


class Scatter(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        best = x.argmax(1, keepdim=True)
        hot = torch.zeros_like(x).scatter(1, best, 1.0)
        order = x.argsort(1).gather(1, best)
        return torch.cat([hot.scatter_add(1, best, x[:, :1]), order.float()], 1)


class InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        out[:, 0] = x[:, 1]
        out[:, 1:3] = 2.0
        return out.add_(1).mul_(x).clamp_(-1, 1)


class NoGrad(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            h = self.first(x)
        return self.second(h)


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 1e9, lambda x: x.sin(), lambda x: x.cos(), (x,))


class Grid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("theta", torch.tensor([[1.0, 0.1, 0.0], [0.0, 0.9, 0.1]]))

    def forward(self, x: Tensor) -> Tensor:
        theta = self.theta.expand(x.shape[0], 2, 3)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False, padding_mode="border")


def block(ins: int, outs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(ins, outs, 3, padding=1, bias=False), nn.BatchNorm2d(outs), nn.ReLU(inplace=True)
    )


def stack(*layers: nn.Module | Callable[[Tensor], Tensor]) -> Network:
    return lambda: nn.Sequential(*(i if isinstance(i, nn.Module) else Fn(i) for i in layers))


def encoder(**options: Any) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def resized(**options: Any) -> Network:
    return stack(nn.Conv2d(2, 3, 3), lambda x: F.interpolate(x, **options))


def padded(mode: str) -> Network:
    return stack(nn.Conv2d(2, 3, 3, padding=1, padding_mode=mode))


def activations(x: Tensor) -> Tensor:
    kinds = [
        F.relu6, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid,
        F.hardtanh, F.softplus, F.softsign, F.leaky_relu, F.logsigmoid, F.tanhshrink, F.hardshrink,
        F.softshrink, torch.tanh, torch.sigmoid, torch.erf,
    ]  # fmt: skip
    return torch.stack([kind(x) for kind in kinds], 1)


def arithmetic(x: Tensor) -> Tensor:
    y = x.abs() + 0.5
    parts = [
        y.log(), y.sqrt(), y.rsqrt(), y.exp(), x.pow(2), y**0.3, x.sin() * x.cos(), x.floor(),
        torch.atan2(x, y), torch.where(x > 0, x, -x), torch.maximum(x, y), x.clamp(-0.2, 0.2),
        x.cumsum(1), x.flip(1), x.roll(1, 1), x.sort(1).values, torch.remainder(x, 0.3), x // 0.3,
        torch.lerp(x, y, 0.3), x.norm(dim=1, keepdim=True).expand_as(x), torch.tril(x),
        x.var(1, keepdim=True) + x, x.std(1, keepdim=True) + x, x.logsumexp(1, keepdim=True) + x,
        x.topk(2, 1).values.sum(1, keepdim=True) + x, x.max(1, keepdim=True).values + x,
    ]  # fmt: skip
    return torch.stack(parts, 1)


FLAT, IMAGE, SERIES = (6,), (2, 8, 8), (5, 8)

#: Name -> how to make it, and the shape of one row.
NETWORKS: dict[str, tuple[Network, tuple[int, ...]]] = {
    "mlp": (stack(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3)), FLAT),
    "mlp batchnorm": (stack(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.GELU()), FLAT),
    "softmax": (stack(nn.Linear(6, 3), nn.Softmax(1)), FLAT),
    "log softmax": (stack(nn.Linear(6, 3), nn.LogSoftmax(1)), FLAT),
    "argmax": (stack(nn.Linear(6, 3), lambda x: x.argmax(1)), FLAT),
    "activations": (stack(activations), FLAT),
    "prelu": (stack(nn.Linear(6, 4), nn.PReLU(4), nn.Softplus()), FLAT),
    "arithmetic": (stack(arithmetic), FLAT),
    "conv1d": (stack(nn.Conv1d(5, 4, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten()), SERIES),
    "conv1d dilated": (stack(nn.ConstantPad1d((4, 0), 0.0), nn.Conv1d(5, 4, 3, dilation=2)),
                       SERIES),
    "cnn": (lambda: nn.Sequential(block(2, 4), block(4, 4), nn.Flatten(), nn.Linear(256, 3)),
            IMAGE),
    "cnn strided": (stack(nn.Conv2d(2, 4, 3, 2), nn.LeakyReLU(0.1, True), nn.Flatten(1)), IMAGE),
    "resnet": (lambda: nn.Sequential(block(2, 4), Residual(block(4, 4)), nn.AvgPool2d(2)), IMAGE),
    "grouped": (stack(nn.Conv2d(2, 4, 3, groups=2), nn.GroupNorm(2, 4), nn.ELU()), IMAGE),
    "depthwise": (stack(nn.Conv2d(2, 2, 3, groups=2), nn.Conv2d(2, 4, 1), nn.ReLU6(True)), IMAGE),
    "squeeze": (lambda: nn.Sequential(block(2, 4), SqueezeExcite(4), nn.Hardswish()), IMAGE),
    "transposed": (stack(nn.ConvTranspose2d(2, 3, 3, 2, 1, 1), nn.Tanh()), IMAGE),
    "transposed1d": (stack(nn.ConvTranspose1d(5, 3, 4, 2, 1)), SERIES),
    "conv3d": (stack(lambda x: x.unsqueeze(1), nn.Conv3d(1, 2, (2, 3, 3)), nn.MaxPool3d((1, 2, 2))),
               IMAGE),
    "same padding": (stack(nn.Conv2d(2, 3, 3, padding="same")), IMAGE),
    "instance norm": (stack(nn.Conv2d(2, 3, 3), nn.InstanceNorm2d(3, affine=True)), IMAGE),
    "layer norm": (stack(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 2)), SERIES),
    "local response": (stack(nn.Conv2d(2, 6, 3), nn.LocalResponseNorm(3)), IMAGE),
    "adaptive pools": (stack(lambda x: torch.cat([F.adaptive_avg_pool2d(x, 3),
                                                  F.adaptive_max_pool2d(x, 3)], 1)), IMAGE),
    "pools": (stack(nn.AvgPool2d(3, 2, 1), nn.LPPool2d(2, 2)), IMAGE),
    "global pool": (stack(nn.Conv2d(2, 3, 3), lambda x: x.mean((2, 3)), nn.Linear(3, 2)), IMAGE),
    "unpool": (stack(lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)), IMAGE),
    "pixel shuffle": (stack(nn.Conv2d(2, 8, 3, padding=1), nn.PixelShuffle(2)), IMAGE),
    "pixel unshuffle": (stack(nn.PixelUnshuffle(2), nn.ChannelShuffle(2)), IMAGE),
    "unet": (lambda: UNet(True), (1, 8, 8)),
    "unet bilinear": (lambda: UNet(False), (1, 8, 8)),
    "nearest": (resized(scale_factor=2), IMAGE),
    "nearest exact": (resized(size=(9, 9), mode="nearest-exact"), IMAGE),
    "bilinear": (resized(size=(10, 7), mode="bilinear", align_corners=True), IMAGE),
    "bicubic": (resized(scale_factor=1.5, mode="bicubic"), IMAGE),
    "area": (resized(size=(3, 3), mode="area"), IMAGE),
    "antialias": (resized(size=(3, 3), mode="bilinear", antialias=True), IMAGE),
    "linear": (stack(lambda x: F.interpolate(x, scale_factor=2, mode="linear")), SERIES),
    "trilinear": (stack(lambda x: F.interpolate(x[:, None], scale_factor=2, mode="trilinear")),
                  IMAGE),
    "reflect": (padded("reflect"), IMAGE),
    "replicate": (padded("replicate"), IMAGE),
    "circular": (padded("circular"), IMAGE),
    "unfold": (stack(nn.Unfold(2), lambda x: F.fold(x, (8, 8), 2)), IMAGE),
    "grid sample": (Grid, IMAGE),
    "encoder": (encoder, SERIES),
    "encoder gelu": (lambda: encoder(activation="gelu", norm_first=True), SERIES),
    "attention": (Attention, SERIES),
    "causal attention": (lambda: Attention(causal=True), SERIES),
    "rotary": (Rotary, (5, 16)),
    "lstm": (lambda: Recurrent(nn.LSTM(8, 6, 2, batch_first=True)), SERIES),
    "lstm both ways": (lambda: Recurrent(nn.LSTM(8, 6, batch_first=True, bidirectional=True)),
                       SERIES),
    "gru": (lambda: Recurrent(nn.GRU(8, 6, batch_first=True)), SERIES),
    "rnn": (lambda: Recurrent(nn.RNN(8, 6, batch_first=True)), SERIES),
    "fourier": (Fourier, (2, 16)),
    "fft2": (stack(lambda x: torch.fft.fft2(x).abs().log1p()), IMAGE),
    "complex": (stack(lambda x: torch.fft.fft(x)), FLAT),
    "einsum": (stack(lambda x: torch.einsum("bij,bkj->bik", x, x)), SERIES),
    "scatter": (Scatter, FLAT),
    "in place": (InPlace, FLAT),
    "no grad": (NoGrad, FLAT),
    "branches": (Branches, FLAT),
    "cosine": (stack(lambda x: F.cosine_similarity(x, x.roll(1, 1)), lambda x: x[:, None]), FLAT),
    "normalize": (stack(lambda x: F.normalize(x, dim=1), lambda x: torch.cdist(x, x.abs())),
                  SERIES),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)), FLAT),
    "glu": (stack(nn.Linear(6, 8), nn.GLU()), FLAT),
    "words": (Words, (6,)),
    "one hot": (stack(lambda x: F.one_hot(x, 20).float().mean(1)), (6,)),
}  # fmt: skip
INTEGERS = {"words", "one hot"}


def make(name: str) -> tuple[nn.Module, np.ndarray[Any, Any]]:
    """Return a network in eval mode and four rows for it."""
    torch.manual_seed(0)
    build, shape = NETWORKS[name]
    module = build().eval()
    rng = np.random.default_rng(0)
    if name in INTEGERS:
        return module, rng.integers(0, 20, (4, *shape))
    return module, rng.normal(size=(4, *shape)).astype(np.float32)
