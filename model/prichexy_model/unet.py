"""What the project's U-Nets have in common: how values go down, across and up."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from monai.networks.layers.factories import Pool
from torch import Tensor, nn

__all__ = ["UNet"]


class UNet(nn.Module):
    """A U-Net of given blocks; which they are is what makes one network or another.

    ``encoder`` holds a block a level, from the finest on, each followed by 2×2 max pooling;
    ``bottleneck`` is what lies below. ``upsample`` and ``decoder`` hold one for each level, from
    the coarsest on: the upsampled values and those that the encoder gave at the level are what a
    decoder's block takes, as its channels. ``head`` ends the finest level.
    """

    def __init__(
        self,
        *,
        encoder: Iterable[nn.Module],
        bottleneck: nn.Module,
        upsample: Iterable[nn.Module],
        decoder: Iterable[nn.Module],
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(encoder)
        self.pool = Pool[Pool.MAX, 2](kernel_size=2, stride=2)
        self.bottleneck = bottleneck
        self.upsample = nn.ModuleList(upsample)
        self.decoder = nn.ModuleList(decoder)
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Give what the head makes of ``images`` (B, C, H, W), of as many rows and columns.

        Raises ValueError unless H and W are multiples of 2 to the number of levels.
        """
        stride = 2 ** len(self.encoder)
        rows, columns = images.shape[-2:]
        if rows % stride or columns % stride:
            raise ValueError(f"rows and columns must be multiples of {stride}")
        values = images
        skipped: list[Tensor] = []
        for block in self.encoder:
            values = block(values)
            skipped.append(values)
            values = self.pool(values)
        values = self.bottleneck(values)
        for upsample, block in zip(self.upsample, self.decoder, strict=True):
            values = block(torch.cat((upsample(values), skipped.pop()), dim=1))
        given: Tensor = self.head(values)
        return given
