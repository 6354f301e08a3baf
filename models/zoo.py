"""Small reference networks, as factories: ``model="approxifer.models.zoo:lenet5"``.

They take rows as data sets store them, and normalise and reshape inside: pictures of grey pixels
(side, side), of coloured ones (side, side, channels), in 0..16 (the 8 x 8 digits) or 0..255; and
fields (latitude, longitude) in their own unit.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn


class Pixels(nn.Module):
    """Turn stored pixels into planes: (M, side, side[, channels]) -> (M, channels, side, side).

    Pixels in 0..`maximum` of any numeric type become floats in -1..1.
    """

    scale: torch.Tensor

    def __init__(self, maximum: float, *, channels: int = 1) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("scale", torch.tensor(2.0 / maximum))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Scale, and put the channels first."""
        scaled = rows.to(self.scale.dtype) * self.scale - 1
        if self.channels == 1 and scaled.ndim == 3:
            return scaled.unsqueeze(1)
        return scaled.permute(0, 3, 1, 2)


class Flat(nn.Module):
    """Turn stored features into scaled vectors: (M, ...) -> (M, features)."""

    scale: torch.Tensor

    def __init__(self, maximum: float) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(2.0 / maximum))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Flatten and scale."""
        return rows.flatten(1).to(self.scale.dtype) * self.scale - 1


class Standard(nn.Module):
    """Turn stored fields into one standardised plane: (M, lat, lon) -> (M, 1, lat, lon)."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, mean: float, deviation: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("deviation", torch.tensor(deviation))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Subtract the mean and divide."""
        return ((rows.to(self.mean.dtype) - self.mean) / self.deviation).unsqueeze(1)


class Increment(nn.Module):
    """Turn a standardised plane into increments: (M, 1, lat, lon) -> (M, lat, lon)."""

    scale: torch.Tensor

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """Give it the field's unit."""
        return planes.squeeze(1) * self.scale


class Residual(nn.Module):
    """A basic block of ResNet: two 3 x 3 convolutions beside a shortcut (He et al. 2015)."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outside),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """Add both ways up."""
        return torch.relu(self.main(planes) + self.shortcut(planes))


def mlp(
    features: int = 64,
    classes: int = 10,
    hidden: Sequence[int] = (128, 64),
    *,
    maximum: float | None = None,
) -> nn.Module:
    """Make a perceptron on flattened rows.

    Parameters
    ----------
    features : int
        Numbers in one row (8 x 8 pixels by default).
    classes : int
        Length of the output.
    hidden : sequence of int
        Widths between.
    maximum : float, optional
        Largest pixel; by default 16 for 64 features, else 255.
    """
    widths = [features, *hidden]
    layers: list[nn.Module] = [Flat(maximum or (16.0 if features == 64 else 255.0))]
    for inside, outside in pairwise(widths):
        layers += [nn.Linear(inside, outside), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))


def lenet5(
    side: int = 8, classes: int = 10, channels: int = 1, *, maximum: float | None = None
) -> nn.Module:
    """Make LeNet-5 (LeCun et al. 1998), with ReLU and max-pooling.

    Parameters
    ----------
    side : int
        Pixels along an edge: a multiple of 4. Below 20 the kernels are 3 x 3 instead of 5 x 5.
    classes, channels : int
    maximum : float, optional
        Largest pixel; by default 16 for side 8, else 255.
    """
    kernel = 3 if side < 20 else 5
    last = side // 4 if kernel == 3 else side // 4 - 2
    return nn.Sequential(
        Pixels(maximum or (16.0 if side == 8 else 255.0), channels=channels),
        nn.Conv2d(channels, 6, kernel, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, kernel, padding=1 if kernel == 3 else 0),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * last * last, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )


def small_resnet(
    classes: int = 10,
    channels: int = 3,
    widths: Sequence[int] = (16, 32, 64),
    *,
    maximum: float = 255.0,
) -> nn.Module:
    """Make a small ResNet with one basic block per width, each after the first halving the side.

    Parameters
    ----------
    classes, channels : int
    widths : sequence of int
        Planes of each stage.
    maximum : float
        Largest pixel.
    """
    layers: list[nn.Module] = [
        Pixels(maximum, channels=channels),
        nn.Conv2d(channels, widths[0], 3, padding=1, bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(),
    ]
    inside = widths[0]
    for number, outside in enumerate(widths):
        layers.append(Residual(inside, outside, 1 if number == 0 else 2))
        inside = outside
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, classes))


def vgg(
    classes: int = 10,
    channels: int = 3,
    widths: Sequence[int] = (16, 32, 64),
    *,
    maximum: float = 255.0,
) -> nn.Module:
    """Make a small VGG (Simonyan and Zisserman 2015): two 3 x 3 convolutions per width, then
    max-pooling, with batch normalisation.

    Parameters
    ----------
    classes, channels : int
    widths : sequence of int
        Planes of each stage.
    maximum : float
        Largest pixel.
    """
    layers: list[nn.Module] = [Pixels(maximum, channels=channels)]
    for inside, outside in pairwise((channels, *widths)):
        for planes in (inside, outside):
            layers += _convolution(planes, outside)
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes)
    )


def depthwise(
    classes: int = 10,
    channels: int = 3,
    widths: Sequence[int] = (32, 64, 128),
    *,
    maximum: float = 255.0,
) -> nn.Module:
    """Make a small MobileNet (Howard et al. 2017): depthwise separable convolutions, each width
    after the first halving the side.

    Parameters
    ----------
    classes, channels : int
    widths : sequence of int
        Planes of each stage.
    maximum : float
        Largest pixel.
    """
    layers = [Pixels(maximum, channels=channels), *_convolution(channels, widths[0])]
    inside = widths[0]
    for number, outside in enumerate(widths):
        layers += _convolution(inside, inside, stride=1 if number == 0 else 2, groups=inside)
        layers += _convolution(inside, outside, kernel=1)
        layers += _convolution(outside, outside, groups=outside)
        layers += _convolution(outside, outside, kernel=1)
        inside = outside
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, classes))


def _convolution(
    inside: int, outside: int, *, kernel: int = 3, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    return [
        nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
    ]


def forecaster(
    mean: float = 0.0, deviation: float = 1.0, increment: float = 1.0, *, width: int = 16
) -> nn.Module:
    """Make a convolutional network of four layers that forecasts a field's change.

    It takes fields of any size, (M, lat, lon), and returns increments of the same shape and unit.
    The three numbers are part of its weights: ``state=`` brings them along.

    Parameters
    ----------
    mean, deviation : float
        Of the fields, in their unit (K).
    increment : float
        Root mean square of the increments, in the same unit.
    width : int
        Planes between the layers.
    """
    layers: list[nn.Module] = [Standard(mean, deviation)]
    for inside, outside in pairwise((1, width, width, width)):
        layers += [nn.Conv2d(inside, outside, 5, padding="same"), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, 1, 5, padding="same"), Increment(increment))
