"""Methods of anonymisation under one interface: what the attackers and the classifier are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from prichexy_model.anonymizer import Anonymizer
from prichexy_model.dppix import dp_pix
from prichexy_model.flow import Border, warp
from prichexy_model.privacynet import PrivacyNet
from prichexy_model.random_field import random_displacement

__all__ = ["DPPix", "Deformation", "Deforming", "Method", "PrivacyNetMethod", "RandomWarp", "Real"]


class Method(Protocol):
    """Turns real images into anonymised ones.

    Every image's result depends on the image and its own generator alone, never on the others of
    its batch. So it can be made again, in whatever batches.
    """

    @property
    def name(self) -> str:
        """How the method and its settings are told apart from others, on one line."""

    @property
    def stochastic(self) -> bool:
        """Whether it draws: whether another generator gives another image."""

    def __call__(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Give ``images`` (B, 1, H, W) in [0, 1] anonymised: same shape, same range.

        ``generators`` are B of the CPU, one for each image; only random methods draw from them.
        """


@runtime_checkable
class Deforming(Method, Protocol):
    """A method that moves pixels, and can say where."""

    def displacement(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Give the displacement (B, 2, H, W), in the coordinates of ``flow``, of ``images``.

        The one by which a call with the same ``images`` and ``generators`` deforms them.
        """


@dataclass(frozen=True)
class Real:
    """Nothing is done: what a method is compared with."""

    @property
    def name(self) -> str:
        """``real``."""
        return "real"

    @property
    def stochastic(self) -> bool:
        """No."""
        return False

    def __call__(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Give ``images`` as they are."""
        _check(images, generators)
        return images


@dataclass(frozen=True, eq=False)
class Deformation:
    """PriCheXy-Net: the deformation that a trained generator proposes."""

    anonymizer: Anonymizer

    @property
    def name(self) -> str:
        """``prichexy-net:mu=0.01``, with the border where it is not the corrected one."""
        return "prichexy-net:" + _field(self.anonymizer.mu, self.anonymizer.border)

    @property
    def stochastic(self) -> bool:
        """No."""
        return False

    def __call__(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Give ``images`` deformed; raises ValueError while the anonymizer is in train mode."""
        _check(images, generators)
        _check_eval(self.anonymizer)
        deformed: Tensor = self.anonymizer(images)
        return deformed

    def displacement(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Give the field that ``images`` are deformed by; see ``Deforming``."""
        _check(images, generators)
        _check_eval(self.anonymizer)
        return self.anonymizer.displacement(images)


@dataclass(frozen=True, eq=False)
class PrivacyNetMethod:
    """Privacy-Net: the image that the network paints."""

    network: PrivacyNet

    @property
    def name(self) -> str:
        """``privacy-net``."""
        return "privacy-net"

    @property
    def stochastic(self) -> bool:
        """No."""
        return False

    def __call__(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Give ``images`` repainted; raises ValueError while the network is in train mode."""
        _check(images, generators)
        _check_eval(self.network)
        painted: Tensor = self.network(images)
        return painted


@dataclass(frozen=True)
class DPPix:
    """DP-Pix: ``dppix.dp_pix`` with cells of ``cell`` pixels."""

    cell: int
    epsilon: float = 0.1

    @property
    def name(self) -> str:
        """``dp-pix:b=4``, with epsilon where it is not the paper's."""
        return f"dp-pix:b={self.cell}" + ("" if self.epsilon == 0.1 else f",eps={self.epsilon:g}")

    @property
    def stochastic(self) -> bool:
        """Yes: the noise."""
        return True

    def __call__(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Give ``images`` in noisy cells."""
        _check(images, generators)
        return dp_pix(images, self.cell, self.epsilon, generators)


@dataclass(frozen=True)
class RandomWarp:
    """A random smooth deformation, bounded as PriCheXy-Net's by mu; most of it is far weaker."""

    mu: float
    border: Border = "corrected"
    coarseness: int = 1

    @property
    def name(self) -> str:
        """``random:mu=0.01``, with border and coarseness where they are not the default."""
        coarse = "" if self.coarseness == 1 else f",coarseness={self.coarseness}"
        return f"random:{_field(self.mu, self.border)}{coarse}"

    @property
    def stochastic(self) -> bool:
        """Yes: the field."""
        return True

    def __call__(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Give square ``images`` deformed, each by a draw of its own."""
        return warp(images, self.displacement(images, generators))

    def displacement(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Give the field that ``images`` are deformed by; see ``Deforming``."""
        _check(images, generators)
        size = images.shape[-1]
        fields = [
            random_displacement(
                1, size, self.mu, generator, border=self.border, coarseness=self.coarseness
            )
            for generator in generators
        ]
        return torch.cat(fields).to(images.device)


def _field(mu: float, border: Border) -> str:
    return f"mu={mu:g}" + ("" if border == "corrected" else f",border={border}")


def _check(images: Tensor, generators: Sequence[torch.Generator]) -> None:
    if len(generators) != len(images):
        raise ValueError("there is one generator for each image")


def _check_eval(network: torch.nn.Module) -> None:
    # In train mode the batch norms would mix the images of a batch.
    if any(module.training for module in network.modules()):
        raise ValueError("the network is in train mode: call its eval() first")
