"""The networks once more, in float64 NumPy, straight from their papers and published names.

Every function takes ``weights``, which gives the array of a name and is told the shape that the
definition wants. ``Drawn`` makes the arrays up as they are asked for, and so writes a state
dictionary in the layout that torchvision publishes, without torchvision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Drawn",
    "Given",
    "densenet121",
    "efficientnet_lite0",
    "normalised",
    "privacy_net",
    "resnet50",
]

Array = NDArray[np.float64]
Pads = tuple[tuple[int, int], tuple[int, int]]


class Weights(Protocol):
    def __call__(self, name: str, *shape: int) -> Array: ...


class Given:
    """The arrays of a state dictionary; ``used`` tells which were asked for."""

    def __init__(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        self.arrays = arrays
        self.used: set[str] = set()

    def __call__(self, name: str, *shape: int) -> Array:
        self.used.add(name)
        array = self.arrays[name].astype(np.float64)
        assert array.shape == shape, (name, array.shape, shape)
        return array


class Drawn:
    """Arrays drawn when they are first asked for, of a size that keeps signals alive."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.arrays: dict[str, NDArray[np.float32]] = {}

    def __call__(self, name: str, *shape: int) -> Array:
        if name not in self.arrays:
            if len(shape) > 1:
                array = self._random.normal(0, math.sqrt(2 / math.prod(shape[1:])), shape)
            elif name.endswith(("weight", "var")):
                array = self._random.uniform(0.5, 1.5, shape)
            else:
                array = self._random.normal(0, 0.1, shape)
            self.arrays[name] = array.astype(np.float32)
        return self.arrays[name].astype(np.float64)


def normalised(image: Array) -> Array:
    """Give a grey image (H, W) in [0, 1] as ImageNet networks want it: (3, H, W)."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    result: Array = (image[None] - mean[:, None, None]) / std[:, None, None]
    return result


def resnet50(weights: Weights, values: Array) -> Array:
    """Give the 2048 features of (3, H, W): He et al. 2016, the stride in the 3×3 convolution."""
    values = _relu(_norm(weights, "bn1", _conv(weights, "conv1", values, 64, 7, stride=2)))
    values = _max_pool(values)
    for stage, (width, repeats) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], start=1):
        for block in range(repeats):
            name = f"layer{stage}.{block}"
            stride = 2 if block == 0 and stage > 1 else 1
            inner = _conv(weights, f"{name}.conv1", values, width, 1)
            inner = _relu(_norm(weights, f"{name}.bn1", inner))
            inner = _conv(weights, f"{name}.conv2", inner, width, 3, stride=stride)
            inner = _relu(_norm(weights, f"{name}.bn2", inner))
            inner = _conv(weights, f"{name}.conv3", inner, 4 * width, 1)
            inner = _norm(weights, f"{name}.bn3", inner)
            if block == 0:
                values = _conv(weights, f"{name}.downsample.0", values, 4 * width, 1, stride=stride)
                values = _norm(weights, f"{name}.downsample.1", values)
            values = _relu(values + inner)
    return _mean(values)


def densenet121(weights: Weights, values: Array) -> Array:
    """Give the 1024 features of (3, H, W): Huang et al. 2017, growth 32, bottleneck 128."""
    values = _conv(weights, "features.conv0", values, 64, 7, stride=2)
    values = _max_pool(_relu(_norm(weights, "features.norm0", values)))
    for number, layers in enumerate([6, 12, 24, 16], start=1):
        for layer in range(1, layers + 1):
            name = f"features.denseblock{number}.denselayer{layer}"
            inner = _relu(_norm(weights, f"{name}.norm1", values))
            inner = _conv(weights, f"{name}.conv1", inner, 128, 1)
            inner = _relu(_norm(weights, f"{name}.norm2", inner))
            inner = _conv(weights, f"{name}.conv2", inner, 32, 3)
            values = np.concatenate((values, inner))
        if number < 4:
            name = f"features.transition{number}"
            values = _relu(_norm(weights, f"{name}.norm", values))
            values = _conv(weights, f"{name}.conv", values, len(values) // 2, 1)
            channels, rows, columns = values.shape
            values = values.reshape(channels, rows // 2, 2, columns // 2, 2).mean(axis=(2, 4))
    return _mean(_relu(_norm(weights, "features.norm5", values)))


def efficientnet_lite0(weights: Weights, values: Array) -> Array:
    """Give the 1280 features of (3, H, W), which are (8-bit value - 127) / 128.

    TensorFlow's "same" padding: as much as the output needs, the odd one right and below.
    """
    values = _relu6(_lite_norm(weights, "_bn0", _same(weights, "_conv_stem", values, 32, 3, 2)))
    number = 0
    for repeats, kernel, first_stride, expansion, channels in [
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    ]:
        for repeat in range(repeats):
            name = f"_blocks.{number}"
            stride = first_stride if repeat == 0 else 1
            inner = values
            if expansion > 1:
                wide = expansion * len(values)
                inner = _same(weights, f"{name}._expand_conv", inner, wide, 1, 1)
                inner = _relu6(_lite_norm(weights, f"{name}._bn0", inner))
            inner = _same(
                weights, f"{name}._depthwise_conv", inner, len(inner), kernel, stride, deep=True
            )
            inner = _relu6(_lite_norm(weights, f"{name}._bn1", inner))
            inner = _same(weights, f"{name}._project_conv", inner, channels, 1, 1)
            inner = _lite_norm(weights, f"{name}._bn2", inner)
            values = inner + values if repeat > 0 else inner
            number += 1
    values = _same(weights, "_conv_head", values, 1280, 1, 1)
    return _mean(_relu6(_lite_norm(weights, "_bn1", values)))


def privacy_net(weights: Weights, image: Array) -> Array:
    """Give the image (H, W) that Privacy-Net makes of one, in eval mode."""
    values = image[None]
    skipped = []
    for level, channels in enumerate([16, 32, 64]):
        values = _privacy_block(weights, f"encoder.{level}", values, channels)
        skipped.append(values)
        count, rows, columns = values.shape
        values = values.reshape(count, rows // 2, 2, columns // 2, 2).max(axis=(2, 4))
    values = _privacy_block(weights, "bottleneck", values, 128)
    for level, channels in enumerate([64, 32, 16]):
        values = _transposed(weights, f"upsample.{level}.conv", values)
        values = _norm(weights, f"upsample.{level}.adn.N", values)
        values = np.concatenate((values, skipped.pop()))
        values = _privacy_block(weights, f"decoder.{level}", values, channels)
    values = _conv(weights, "head.conv", values, 1, 3, bias=True)
    values = _norm(weights, "head.adn.N", values)
    result: Array = 1 / (1 + np.exp(-values[0]))
    return result


def _privacy_block(weights: Weights, name: str, values: Array, channels: int) -> Array:
    values = _conv(weights, f"{name}.0.conv", values, channels, 3, bias=True)
    values = _norm(weights, f"{name}.0.adn.N", values)
    values = np.where(values > 0, values, 0.2 * values)
    values = _conv(weights, f"{name}.1.conv", values, channels, 3, bias=True)
    return _norm(weights, f"{name}.1.adn.N", values)


def _transposed(weights: Weights, name: str, values: Array) -> Array:
    """Convolve 3×3 with stride 2, transposed: each pixel is spread around its double place."""
    channels, rows, columns = values.shape
    kernel = weights(f"{name}.weight", channels, channels, 3, 3)
    spread = np.zeros((channels, 2 * rows + 1, 2 * columns + 1))
    for dy, dx in np.ndindex(3, 3):
        part = np.einsum("io,iyx->oyx", kernel[:, :, dy, dx], values)
        spread[:, dy : dy + 2 * rows : 2, dx : dx + 2 * columns : 2] += part
    return spread[:, 1:, 1:] + weights(f"{name}.bias", channels)[:, None, None]


def _conv(
    weights: Weights,
    name: str,
    values: Array,
    channels: int,
    kernel: int,
    *,
    stride: int = 1,
    bias: bool = False,
) -> Array:
    half = kernel // 2
    weight = weights(f"{name}.weight", channels, len(values), kernel, kernel)
    result = _windows(values, kernel, stride, ((half, half), (half, half)))
    total: Array = np.tensordot(weight, result, axes=([1, 2, 3], [0, 3, 4]))
    return total + weights(f"{name}.bias", channels)[:, None, None] if bias else total


def _same(
    weights: Weights,
    name: str,
    values: Array,
    channels: int,
    kernel: int,
    stride: int,
    *,
    deep: bool = False,
) -> Array:
    pads = [
        max((math.ceil(length / stride) - 1) * stride + kernel - length, 0)
        for length in values.shape[1:]
    ]
    around = ((pads[0] // 2, pads[0] - pads[0] // 2), (pads[1] // 2, pads[1] - pads[1] // 2))
    windows = _windows(values, kernel, stride, around)
    weight = weights(f"{name}.weight", channels, 1 if deep else len(values), kernel, kernel)
    if deep:
        result: Array = np.einsum("ckl,cyxkl->cyx", weight[:, 0], windows)
        return result
    return np.tensordot(weight, windows, axes=([1, 2, 3], [0, 3, 4]))


def _windows(values: Array, kernel: int, stride: int, pads: Pads, fill: float = 0.0) -> Array:
    padded = np.pad(values, ((0, 0), *pads), constant_values=fill)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(1, 2))
    return windows[:, ::stride, ::stride]


def _norm(weights: Weights, name: str, values: Array, eps: float = 1e-5) -> Array:
    weight, bias, mean, var = (
        weights(f"{name}.{part}", len(values))[:, None, None]
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    result: Array = (values - mean) / np.sqrt(var + eps) * weight + bias
    return result


def _lite_norm(weights: Weights, name: str, values: Array) -> Array:
    return _norm(weights, name, values, eps=1e-3)


def _max_pool(values: Array) -> Array:
    windows = _windows(values, 3, 2, ((1, 1), (1, 1)), fill=-np.inf)
    result: Array = windows.max(axis=(3, 4))
    return result


def _relu(values: Array) -> Array:
    return np.maximum(values, 0)


def _relu6(values: Array) -> Array:
    return np.clip(values, 0, 6)


def _mean(values: Array) -> Array:
    result: Array = values.mean(axis=(1, 2))
    return result
