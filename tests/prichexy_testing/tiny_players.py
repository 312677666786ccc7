"""Tiny float64 networks that play the adversarial game, and batches for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prichexy_model.anonymizer import Anonymizer
from prichexy_model.flow import Border
from prichexy_train.stages.adversarial_step import Batch, Optimizers, Players

__all__ = ["CLASSES", "MU", "SIZE", "Classifier", "Verifier", "batches", "optimizers", "players"]

SIZE = 16
MU = 0.1
CLASSES = 3


class Verifier(nn.Module):
    """Siamese: convolution, batch norm, mean, and the paper's head of differences."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4)
        )
        self.embedding = nn.Linear(4, 5)
        self.head = nn.Linear(5, 1)

    def embed(self, images: Tensor) -> Tensor:
        return self.embedding(self.features(images).relu().mean(dim=(2, 3))).sigmoid()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.head((self.embed(first) - self.embed(second)).abs())[:, 0]


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4)
        )
        self.head = nn.Linear(4, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).relu().mean(dim=(2, 3)))


def players(border: Border = "corrected", verifiers: int = 1) -> Players:
    """Give tiny float64 networks whose weights and statistics are far from their defaults."""
    torch.manual_seed(11)
    generator = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.BatchNorm2d(2), nn.Tanh()
    )
    networks = Players(
        anonymizer=Anonymizer(generator, MU, border, size=SIZE).double(),
        verifiers=[Verifier().double() for _ in range(verifiers)],
        classifier=Classifier().double(),
    )
    for network in (networks.anonymizer, *networks.critics):
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
                nn.init.uniform_(module.running_var, 0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 2)
    return networks


def optimizers(networks: Players) -> Optimizers:
    return Optimizers(
        anonymizer=torch.optim.Adam(networks.anonymizer.parameters(), lr=1e-4),
        verifiers=[torch.optim.Adam(net.parameters(), lr=1e-4) for net in networks.verifiers],
        classifier=torch.optim.SGD(
            networks.classifier.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4
        ),
    )


def batches(count: int, dtype: torch.dtype = torch.float64) -> list[Batch]:
    source = torch.Generator().manual_seed(5)

    def images() -> Tensor:
        return torch.rand(6, 1, SIZE, SIZE, generator=source, dtype=torch.float64).to(dtype)

    return [
        Batch(
            first=images(),
            second=images(),
            same=torch.tensor([1, 0, 1, 1, 0, 0]).to(dtype),
            labels=torch.randint(2, (6, CLASSES), generator=source).to(dtype),
        )
        for _ in range(count)
    ]
