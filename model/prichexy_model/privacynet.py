"""Privacy-Net, a baseline: a U-Net whose output *is* the anonymised image.

After Kim et al. (2021), in the two-dimensional form that PriCheXy-Net is compared with. It may
change every pixel to anything, so nothing but its training guards what the image shows.
"""

from __future__ import annotations

from typing import Final

import torch
from monai.networks.blocks.convolutions import Convolution
from torch import Tensor, nn

from prichexy_model.unet import UNet

__all__ = ["FEATURES", "PARAMETERS", "STRIDE", "PrivacyNet"]

#: Channels of the three encoder levels and of the bottleneck.
FEATURES: Final = (16, 32, 64, 128)
#: The number of parameters of the published network, and so of this one.
PARAMETERS: Final = 682_755
#: Rows and columns of the input must be multiples of this: three poolings by two.
STRIDE: Final = 2 ** (len(FEATURES) - 1)

_SLOPE: Final = 0.2


class PrivacyNet(UNet):
    """A U-Net from an image (B, 1, H, W) to another one, both in [0, 1].

    In train mode the batch norms mix the images of a batch: call ``eval()`` for results that
    depend on nothing but the image itself.
    """

    def __init__(self) -> None:
        encoder = FEATURES[:-1]
        decoder = encoder[::-1]
        # Listed, not yielded: torch's random source must be asked in the network's own order.
        super().__init__(
            encoder=[
                _block(before, after) for before, after in zip((1, *encoder), encoder, strict=False)
            ],
            bottleneck=_block(encoder[-1], FEATURES[-1]),
            # The transposed convolutions keep their channels, with a batch norm and no activation:
            # the count of the published parameters leaves no other reading of the former.
            upsample=[_upsampling(2 * after) for after in decoder],
            # From below come twice the level's channels, from the encoder's same level once.
            decoder=[_block(3 * after, after) for after in decoder],
            head=Convolution(2, encoder[0], 1, adn_ordering="N", norm="batch"),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Give the anonymised ``images`` (B, 1, H, W), values in [0, 1], at least float32.

        Raises ValueError unless H and W are multiples of ``STRIDE``.
        """
        raw = super().forward(images)
        return raw.to(torch.promote_types(raw.dtype, torch.float32)).sigmoid().contiguous()


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Give 3×3 convolution, batch norm, leaky ReLU, 3×3 convolution, batch norm."""
    act = ("leakyrelu", {"negative_slope": _SLOPE, "inplace": True})
    return nn.Sequential(
        Convolution(2, in_channels, out_channels, adn_ordering="NA", norm="batch", act=act),
        Convolution(2, out_channels, out_channels, adn_ordering="N", norm="batch"),
    )


def _upsampling(channels: int) -> Convolution:
    """Give a transposed 3×3 convolution of stride 2 that doubles rows and columns."""
    return Convolution(
        2, channels, channels, strides=2, adn_ordering="N", norm="batch", is_transposed=True
    )
