"""Small random changes of radiographs, so that a network does not learn images by heart.

``draw`` draws the parameters, on the CPU, and is the only place with randomness; ``apply`` is a
function of images and parameters, on whatever device the images are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Annotated, Final

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from prichexy_train.settings import Section

__all__ = ["Augmentation", "Parameters", "apply", "draw"]

Probability = Annotated[float, Field(ge=0, le=1)]

#: The blur's kernel reaches so many pixels; a Gaussian of the largest blur, 2, fits into it.
_RADIUS: Final = 4
#: Sides of an erased rectangle, as parts of the image's.
_ERASED: Final = (0.1, 0.3)


class Augmentation(Section):
    """How far an image may be changed: the table ``[augmentation]``. Nothing is, by default.

    Each number but the probabilities is the largest change, up and down; every image gets its own
    within it, drawn evenly.
    """

    #: The probability of a left-right flip. Not for verifiers: it is as good as another patient.
    flip: Probability = 0.0
    #: Degrees.
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    #: Parts of the image's side.
    translation: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    #: As a logarithm: 0.1 makes an image up to 10.5 % larger or 9.5 % smaller.
    scale: Annotated[float, Field(ge=0, le=1)] = 0.0
    #: As a logarithm: the image to the power of exp(±gamma).
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.0
    #: As a logarithm, around middle grey.
    contrast: Annotated[float, Field(ge=0, le=1)] = 0.0
    #: In parts of the whole range.
    brightness: Annotated[float, Field(ge=0, le=1)] = 0.0
    #: The largest standard deviation of added noise, in parts of the whole range.
    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    #: The largest standard deviation of a Gaussian blur, in pixels.
    blur: Annotated[float, Field(ge=0, le=2)] = 0.0
    #: The probability that a rectangle is painted over, in an even grey.
    erasing: Probability = 0.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """What happens to each of n images; tensors whose first dimension is n.

    ``matrix`` (n, 2, 3) takes places of the result to places of the source, in normalised
    coordinates; ``rectangle`` (n, 5) is left, top, right, bottom in [0, 1] and a grey value;
    ``noise_seed`` whole numbers. A tensor is None when the settings leave that change out.
    """

    matrix: Tensor | None = None
    gamma: Tensor | None = None
    contrast: Tensor | None = None
    brightness: Tensor | None = None
    noise: Tensor | None = None
    noise_seed: Tensor | None = None
    blur: Tensor | None = None
    rectangle: Tensor | None = None

    def every(self, step: int, start: int) -> Parameters:
        """Give the parameters of each ``step``-th image, from the one numbered ``start`` on."""
        return Parameters(
            **{
                field.name: value[start::step] if value is not None else None
                for field in fields(self)
                for value in (getattr(self, field.name),)
            }
        )


def draw(settings: Augmentation, n: int, generator: torch.Generator) -> Parameters:
    """Draw what is to happen to ``n`` images. What is left out draws nothing."""

    def even(largest: float) -> Tensor | None:
        if largest == 0:
            return None
        return (2 * torch.rand(n, generator=generator) - 1) * largest

    matrix = _matrices(settings, n, generator)
    noise = even(settings.noise)
    blur = even(settings.blur)
    return Parameters(
        matrix=matrix,
        gamma=_exp(even(settings.gamma)),
        contrast=_exp(even(settings.contrast)),
        brightness=even(settings.brightness),
        # Half of the images stay without: negative draws count as 0.
        noise=None if noise is None else noise.clamp(min=0),
        noise_seed=None if noise is None else torch.randint(2**62, (n,), generator=generator),
        blur=None if blur is None else blur.clamp(min=0),
        rectangle=_rectangles(settings.erasing, n, generator),
    )


def apply(images: Tensor, parameters: Parameters) -> Tensor:
    """Give ``images`` (B, 1, S, S) in [0, 1], changed by ``parameters`` of B: same shape and range.

    Differentiable in the images, and the same on every device, to rounding.
    """

    def here(values: Tensor) -> Tensor:
        return values.to(images.device, non_blocking=True)

    def each(values: Tensor) -> Tensor:
        return here(values)[:, None, None, None]

    if parameters.matrix is not None:
        grid = functional.affine_grid(
            here(parameters.matrix), list(images.shape), align_corners=False
        )
        images = functional.grid_sample(
            images, grid, mode="bilinear", padding_mode="border", align_corners=False
        )
    if parameters.blur is not None:
        images = _blurred(images, here(parameters.blur))
    if parameters.gamma is not None:
        # Not from 0, where the slope of a power below 1 is infinite.
        images = images.clamp(min=1e-4) ** each(parameters.gamma)
    if parameters.contrast is not None:
        images = (images - 0.5) * each(parameters.contrast) + 0.5
    if parameters.brightness is not None:
        images = images + each(parameters.brightness)
    if parameters.noise is not None and parameters.noise_seed is not None:
        # Looked up where they were drawn: the images' device need not be waited for.
        rows = parameters.noise.nonzero()[:, 0]
        noise = _noise(here(parameters.noise_seed[rows]), images.shape[-1])
        images = images.index_add(0, here(rows), each(parameters.noise[rows]) * noise)
    if parameters.rectangle is not None:
        images = _erased(images, here(parameters.rectangle))
    return images.clamp(0, 1)


def _exp(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.exp()


def _matrices(settings: Augmentation, n: int, generator: torch.Generator) -> Tensor | None:
    if not any((settings.flip, settings.rotation, settings.translation, settings.scale)):
        return None
    angle, log_scale, x, y = 2 * torch.rand(4, n, generator=generator) - 1
    angle = angle * math.radians(settings.rotation)
    zoom = (-log_scale * settings.scale).exp()
    mirror = 1 - 2 * (torch.rand(n, generator=generator) < settings.flip).float()
    # Normalised coordinates are two units wide.
    x, y = 2 * settings.translation * x, 2 * settings.translation * y
    cosine, sine = angle.cos() * zoom, angle.sin() * zoom
    rows = (
        torch.stack((cosine * mirror, -sine, x), dim=1),
        torch.stack((sine * mirror, cosine, y), dim=1),
    )
    return torch.stack(rows, dim=1)


def _rectangles(probability: float, n: int, generator: torch.Generator) -> Tensor | None:
    if probability == 0:
        return None
    wanted, width, height, left, top, grey = torch.rand(6, n, generator=generator)
    least, most = _ERASED
    # One that is not wanted has no size.
    width = (least + (most - least) * width) * (wanted < probability)
    height = least + (most - least) * height
    left, top = left * (1 - width), top * (1 - height)
    return torch.stack((left, top, left + width, top + height, grey), dim=1)


def _erased(images: Tensor, rectangles: Tensor) -> Tensor:
    size = images.shape[-1]
    middle = (torch.arange(size, device=images.device) + 0.5) / size
    left, top, right, bottom, grey = rectangles[:, :, None].unbind(1)
    across = (middle >= left) & (middle < right)
    down = (middle >= top) & (middle < bottom)
    inside = down[:, :, None] & across[:, None, :]
    return torch.where(inside[:, None], grey[:, :, None, None], images)


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    places = torch.arange(-_RADIUS, _RADIUS + 1, device=images.device, dtype=images.dtype)
    # An image that is not blurred has a sigma so small that one weight is left.
    kernels = (-0.5 * (places / sigma.clamp(min=1e-3)[:, None]) ** 2).exp()
    kernels = kernels / kernels.sum(1, keepdim=True)
    count, _, rows, columns = images.shape
    padded = functional.pad(images, (_RADIUS,) * 4, mode="replicate").reshape(
        1, count, rows + 2 * _RADIUS, columns + 2 * _RADIUS
    )
    across = functional.conv2d(padded, kernels[:, None, None, :], groups=count)
    both = functional.conv2d(across, kernels[:, None, :, None], groups=count)
    return both.reshape(count, 1, rows, columns)


def _noise(seeds: Tensor, size: int) -> Tensor:
    """Give noise (n, 1, size, size) of variance 1 that is a function of each image's seed.

    Hashed, not drawn: so it is the same on every device, and an image's noise does not depend on
    the other images of its batch. The sum of four even numbers stands for a normal one.
    """
    pixels = torch.arange(size * size, device=seeds.device)
    mixed = seeds[:, None] + pixels * _GOLDEN
    for shift, factor in _SPLITMIX:
        mixed.bitwise_xor_(_shifted(mixed, shift)).mul_(factor)
    mixed.bitwise_xor_(_shifted(mixed, 31))
    total = (mixed & 0xFFFF).float()
    for shift in (16, 32, 48):
        total += _shifted(mixed, shift).bitwise_and_(0xFFFF)
    # Four evenly distributed numbers of [0, 65535] have mean 2 · 65535, variance (65536² - 1) / 3.
    normal = (total - 2 * 65535) / math.sqrt((65536**2 - 1) / 3)
    return normal.reshape(-1, 1, size, size)


def _shifted(values: Tensor, by: int) -> Tensor:
    """Shift to the right and fill with zeros: torch's own shift of negative numbers fills ones."""
    return (values >> by).bitwise_and_((1 << (64 - by)) - 1)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


#: SplitMix64 (Steele et al. 2014), in the signed numbers that torch has.
_GOLDEN: Final = _signed(0x9E3779B97F4A7C15)
_SPLITMIX: Final = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)))
