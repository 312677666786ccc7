"""The anonymizer: a generator and the deformation operator, as one module."""

from __future__ import annotations

from torch import Tensor, nn

from prichexy_model.flow import BORDERS, Border, displacement, warp

__all__ = ["INPUT_SIZE", "Anonymizer"]

#: Rows and columns that the published generator was made for.
INPUT_SIZE = 256


class Anonymizer(nn.Module):
    """Deforms radiographs with the field that its generator proposes for them.

    It computes where its weights and its images are, keeps gradients unless the caller turns
    them off, and runs under ``torch.inference_mode`` and with ``channels_last`` weights. In train
    mode the batch norms mix the images of a batch: call ``eval()`` for results that depend on
    nothing but the image itself.
    """

    def __init__(
        self,
        generator: nn.Module,
        mu: float = 0.01,
        border: Border = "corrected",
        *,
        size: int = INPUT_SIZE,
    ) -> None:
        """Join ``generator`` and the operator of ``flow.displacement``.

        ``mu`` is the largest displacement along an axis, in normalised coordinates (border "paper"
        adds to it within four pixels of the border); ``size`` the rows and columns of every
        image. Raises ValueError for a negative mu or an unknown border.
        """
        super().__init__()
        if not 0 <= mu < 1:
            raise ValueError("mu is at least 0 and less than 1")
        if border not in BORDERS:
            raise ValueError(f"border is one of {', '.join(BORDERS)}")
        self.generator = generator
        self.mu = mu
        self.border: Border = border
        self.size = size

    def displacement(self, images: Tensor) -> Tensor:
        """Give the displacement (B, 2, size, size) of ``images`` (B, 1, size, size) in [0, 1].

        Normalised coordinates, channel 0 = x, channel 1 = y, at least float32, plane after plane
        in memory whatever the memory format of the weights. The range of the images is not
        checked. Raises ValueError for another shape.
        """
        if images.shape[1:] != (1, self.size, self.size):
            raise ValueError(f"images have the shape (B, 1, {self.size}, {self.size})")
        raw: Tensor = self.generator(images)
        return displacement(raw, self.mu, self.border).contiguous()

    def forward(self, images: Tensor) -> Tensor:
        """Give ``images`` (B, 1, size, size) in [0, 1], deformed: same shape, same range."""
        return warp(images, self.displacement(images))
