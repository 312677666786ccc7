"""Settings of attackers who train for seconds, on 32 pixels."""

from __future__ import annotations

from typing import Any, Final

import torch

__all__ = ["BRIEF", "CPU", "LEARNS", "SIZE"]

#: Of the images, in pixels.
SIZE: Final = 32
CPU: Final = torch.device("cpu")

#: A few seconds of training that learn to tell drawn chests apart.
LEARNS: Final[dict[str, Any]] = {
    "objective": "contrastive",
    "monitor": "auc",
    "contrast": {"patients": 16, "images": 3},
    "network": {"backbone": "tiny", "head": "cosine", "embedding": 16, "size": SIZE},
    "training": {
        "batch_size": 48,
        "epochs": 12,
        "learning_rate": 3e-3,
        "channels_last": False,
        "device": "cpu",
    },
}
#: A training of two steps.
BRIEF: Final[dict[str, Any]] = {
    "network": {"backbone": "tiny", "embedding": 8, "size": SIZE},
    "training": {"batch_size": 8, "epochs": 1, "steps_per_epoch": 2, "device": "cpu"},
}
