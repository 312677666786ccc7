"""The model's arithmetic once more, in float64 NumPy and straight from its definition."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["gaussian_kernel", "generator", "identity", "smooth", "touched", "warp"]

Array = NDArray[np.float64]


def gaussian_kernel(size: int = 9, sigma: float = 2.0) -> Array:
    """Give the two-dimensional Gaussian, sampled at the pixels, summing to 1."""
    y, x = np.mgrid[:size, :size] - size // 2
    kernel = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    result: Array = kernel / kernel.sum()
    return result


def smooth(field: Array) -> Array:
    """Convolve each plane of (C, H, W) with the kernel, zeros outside."""
    kernel = gaussian_kernel()
    reach = kernel.shape[0] // 2
    _, rows, columns = field.shape
    padded = np.pad(field, ((0, 0), (reach, reach), (reach, reach)))
    result = np.zeros_like(field)
    for dy, dx in np.ndindex(kernel.shape):
        result += kernel[dy, dx] * padded[:, dy : dy + rows, dx : dx + columns]
    return result


def identity(rows: int, columns: int) -> Array:
    """Give the normalised coordinates (2, rows, columns), x before y."""
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    return np.stack((x, y))


def warp(image: Array, displacement: Array) -> Array:
    """Sample the plane (H, W) at identity + displacement, bilinear, the border's value outside."""
    rows, columns = image.shape
    x, y = _pixels(displacement)
    x, y = x.clip(0, columns - 1), y.clip(0, rows - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, columns - 1), np.minimum(top + 1, rows - 1)
    u, v = x - left, y - top
    upper = (1 - u) * image[top, left] + u * image[top, right]
    lower = (1 - u) * image[bottom, left] + u * image[bottom, right]
    result: Array = (1 - v) * upper + v * lower
    return result


def touched(displacement: Array) -> NDArray[np.bool_]:
    """Give which pixels (H, W) of a source any sample takes something from."""
    _, rows, columns = displacement.shape
    x, y = _pixels(displacement)
    x, y = x.clip(0, columns - 1), y.clip(0, rows - 1)
    seen = np.zeros((rows, columns), dtype=bool)
    # A rounding error beside a pixel takes nothing worth the name from the next one.
    for corner_x in (np.floor(x + 1e-6), np.ceil(x - 1e-6)):
        for corner_y in (np.floor(y + 1e-6), np.ceil(y - 1e-6)):
            seen[corner_y.astype(int), corner_x.astype(int)] = True
    return seen


def generator(weights: Mapping[str, Array], image: Array) -> Array:
    """Give the raw field (2, H, W) of an image (H, W): the U-Net in eval mode."""
    values = image[None]
    skipped = []
    for level in range(4):
        values = _block(weights, f"encoder.{level}", values)
        skipped.append(values)
        channels, rows, columns = values.shape
        values = values.reshape(channels, rows // 2, 2, columns // 2, 2).max(axis=(2, 4))
    values = _block(weights, "bottleneck", values)
    for level in range(4):
        values = np.concatenate((_transposed(weights, level, values), skipped.pop()))
        values = _block(weights, f"decoder.{level}", values)
    head = weights["head.conv.weight"][:, :, 0, 0]
    raw: Array = np.einsum("oi,iyx->oyx", head, values)
    return np.tanh(raw + weights["head.conv.bias"][:, None, None])


def _pixels(displacement: Array) -> tuple[Array, Array]:
    _, rows, columns = displacement.shape
    places = identity(rows, columns) + displacement
    return (places[0] + 1) / 2 * (columns - 1), (places[1] + 1) / 2 * (rows - 1)


def _block(weights: Mapping[str, Array], name: str, values: Array) -> Array:
    for half in (0, 1):
        kernel = weights[f"{name}.{half}.conv.weight"]
        _, rows, columns = values.shape
        padded = np.pad(values, ((0, 0), (1, 1), (1, 1)))
        total = np.zeros((kernel.shape[0], rows, columns))
        for dy, dx in np.ndindex(3, 3):
            part = padded[:, dy : dy + rows, dx : dx + columns]
            total += np.einsum("oi,iyx->oyx", kernel[:, :, dy, dx], part, optimize=True)
        norm = {
            key: weights[f"{name}.{half}.adn.N.{key}"][:, None, None]
            for key in ("running_mean", "running_var", "weight", "bias")
        }
        total = (total - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-5)
        values = np.maximum(total * norm["weight"] + norm["bias"], 0)
    return values


def _transposed(weights: Mapping[str, Array], level: int, values: Array) -> Array:
    kernel = weights[f"upsample.{level}.deconv.weight"]
    _, rows, columns = values.shape
    result = np.empty((kernel.shape[1], 2 * rows, 2 * columns))
    for dy, dx in np.ndindex(2, 2):
        result[:, dy::2, dx::2] = np.einsum("io,iyx->oyx", kernel[:, :, dy, dx], values)
    return result + weights[f"upsample.{level}.deconv.bias"][:, None, None]
