"""The verifier: it tells how likely two radiographs show the same patient."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from prichexy_model.backbones import build_backbone
from prichexy_model.preprocessing import imagenet, resize

__all__ = ["HEADS", "Head", "SiameseVerifier"]

#: How two embeddings are compared; see ``SiameseVerifier``.
Head = Literal["difference", "cosine"]
HEADS: Final[tuple[Head, ...]] = get_args(Head)

#: The logit of "cosine" before training: its scale, as an exponent, and its bias.
_LOG_SCALE: Final = 2.0
_BIAS: Final = 0.0


class SiameseVerifier(nn.Module):
    """One backbone for both images, one embedding each, and a comparison of the two.

    ``difference``  the paper's: embedding = sigmoid of a linear layer, logit = a linear layer of
                    the absolute difference
    ``cosine``      embedding = a linear layer, scaled to length 1, logit = scale · cosine + bias,
                    both learned. What contrastive training and retrieval want.

    The comparison is symmetric. The backbone may run under autocast; from its features on,
    everything is computed in single precision at least, for a logit of 8 bits ties pairs that the
    network tells apart.
    """

    def __init__(
        self,
        backbone_name: str,
        head: Head = "difference",
        *,
        embedding: int = 128,
        size: int = 256,
        pretrained: Path | None = None,
    ) -> None:
        """Build it with a backbone of ``build_backbone`` and ``embedding`` numbers an image.

        Every image is resized to ``size`` rows and columns. Raises ValueError for an unknown
        backbone or head, WeightsError for ImageNet weights that do not fit.
        """
        super().__init__()
        if head not in HEADS:
            raise ValueError(f"head is one of {', '.join(HEADS)}")
        self.backbone = build_backbone(backbone_name, pretrained=pretrained)
        self.backbone_name = backbone_name
        self.head: Head = head
        self.size = size
        self.embedding = nn.Linear(self.backbone.features, embedding)
        if head == "difference":
            self.decision = nn.Linear(embedding, 1)
        else:
            self.log_scale = nn.Parameter(torch.tensor(_LOG_SCALE))
            self.bias = nn.Parameter(torch.tensor(_BIAS))

    def embed(self, images: Tensor) -> Tensor:
        """Give the embeddings (B, E) of ``images`` (B, 1, H, W) in [0, 1], any H and W."""
        features = self.backbone(imagenet(resize(images, self.size)))
        with torch.autocast(images.device.type, enabled=False):
            features = features.to(self.embedding.weight.dtype)
            raw: Tensor = self.embedding(features)
            if self.head == "difference":
                return raw.sigmoid()
            return functional.normalize(raw, dim=1)

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """Give the logits (B,) that the embeddings ``a`` and ``b`` (B, E) are one patient's."""
        with torch.autocast(a.device.type, enabled=False):
            if self.head == "difference":
                logits: Tensor = self.decision((a - b).abs())
                return logits[:, 0]
            return self.log_scale.exp() * (a * b).sum(1) + self.bias

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """Give the logits (B,) that ``x1`` and ``x2`` (B, 1, H, W) show the same patient."""
        return self.compare(self.embed(x1), self.embed(x2))
