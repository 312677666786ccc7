"""The generator: a five-level U-Net that proposes a displacement for every pixel.

The form is the 2-D U-Net of Buda et al. (2019) with 32 initial features that PriCheXy-Net uses
(Packhäuser et al., MICCAI 2023), assembled from MONAI's blocks.
"""

from __future__ import annotations

from typing import Final

import torch
from monai.networks.blocks.convolutions import Convolution
from monai.networks.blocks.upsample import UpSample
from torch import Tensor, nn
from torch.nn import functional

from prichexy_model.preprocessing import resize
from prichexy_model.unet import UNet

__all__ = ["FEATURES", "PARAMETERS", "STRIDE", "DeformationUNet", "build_generator"]

#: Channels of the four encoder levels and of the bottleneck.
FEATURES: Final = (32, 64, 128, 256, 512)
#: The number of parameters of the published network, and so of this one.
PARAMETERS: Final = 7_762_498
#: Rows and columns of the input must be multiples of this: four poolings by two.
STRIDE: Final = 2 ** (len(FEATURES) - 1)


class DeformationUNet(UNet):
    """A U-Net from one grey channel to a raw field of two channels, each value in (-1, 1).

    The scale of the field is not in the network: ``flow.displacement`` gives it one.

    With a ``field_size`` the network sees every image in so many rows and columns and proposes as
    many vectors, between which the field is linear. For the image's size divided by s it computes
    1/s² as much. The smoothing of ``flow.displacement`` would take most of the detail that is lost:
    half the size keeps 95 % of the variance that it leaves of noise. The weights are the same.
    """

    def __init__(self, field_size: int | None = None) -> None:
        """Build it. Raises ValueError for a ``field_size`` that is no multiple of ``STRIDE``."""
        if field_size is not None and (field_size <= 0 or field_size % STRIDE):
            raise ValueError(f"field_size is a multiple of {STRIDE}")
        encoder = FEATURES[:-1]
        decoder = encoder[::-1]
        # Listed, not yielded: torch's random source must be asked in the network's own order.
        super().__init__(
            encoder=[
                _block(before, after) for before, after in zip((1, *encoder), encoder, strict=False)
            ],
            bottleneck=_block(encoder[-1], FEATURES[-1]),
            upsample=[
                UpSample(spatial_dims=2, in_channels=2 * after, out_channels=after, mode="deconv")
                for after in decoder
            ],
            # Twice the channels come in: those from below, then those of the encoder's same level.
            decoder=[_block(2 * after, after) for after in decoder],
            head=Convolution(
                spatial_dims=2,
                in_channels=encoder[0],
                out_channels=2,
                kernel_size=1,
                conv_only=True,
            ),
        )
        self.field_size = field_size

    def forward(self, images: Tensor) -> Tensor:
        """Give the raw field (B, 2, H, W) of ``images`` (B, 1, H, W), values in [0, 1].

        Raises ValueError unless H and W are multiples of ``STRIDE``; with a ``field_size`` they
        may be any.
        """
        if self.field_size is None:
            return torch.tanh(super().forward(images))
        raw = torch.tanh(super().forward(resize(images, self.field_size)))
        if raw.shape[-2:] == images.shape[-2:]:
            return raw
        return functional.interpolate(
            raw, size=images.shape[-2:], mode="bilinear", align_corners=False
        )


def build_generator(field_size: int | None = None) -> nn.Module:
    """Give the generator with torch's default weights, in train mode, on the CPU.

    ``field_size`` is what ``DeformationUNet`` says of it.
    """
    return DeformationUNet(field_size)


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Give (3×3 convolution without bias, batch norm, ReLU) twice."""
    return nn.Sequential(
        *(
            Convolution(
                spatial_dims=2,
                in_channels=channels,
                out_channels=out_channels,
                kernel_size=3,
                adn_ordering="NA",
                norm="batch",
                act=("relu", {"inplace": True}),
                bias=False,
            )
            for channels in (in_channels, out_channels)
        )
    )
