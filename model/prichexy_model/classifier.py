"""The classifier of abnormalities: it tells what of the diagnosis is left in an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from prichexy_model.backbones import build_backbone
from prichexy_model.preprocessing import imagenet, resize

__all__ = ["AbnormalityClassifier"]


class AbnormalityClassifier(nn.Module):
    """A backbone and a linear layer: one logit for every label, each for itself.

    The backbone may run under autocast; the linear layer is computed in single precision.
    """

    def __init__(
        self,
        backbone_name: str,
        labels: Sequence[str],
        *,
        size: int = 224,
        pretrained: Path | None = None,
    ) -> None:
        """Build it with a backbone of ``build_backbone`` for ``labels``, in their order.

        Every image is resized to ``size`` rows and columns. Raises ValueError for an unknown
        backbone, no label or one named twice, WeightsError for ImageNet weights that do not fit.
        """
        super().__init__()
        if not labels or len(set(labels)) != len(labels):
            raise ValueError("a classifier has one label at least, and none of them twice")
        self.backbone = build_backbone(backbone_name, pretrained=pretrained)
        self.backbone_name = backbone_name
        self.labels = tuple(labels)
        self.size = size
        self.decision = nn.Linear(self.backbone.features, len(labels))

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits (B, labels) of ``images`` (B, 1, H, W) in [0, 1], any H and W."""
        features = self.backbone(imagenet(resize(images, self.size)))
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.decision(features.to(self.decision.weight.dtype))
        return logits
