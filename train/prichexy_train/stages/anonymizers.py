"""What is trained to anonymise: the table ``[anonymizer]`` of a stage, and the module it means."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator
from torch import nn

from prichexy_model.anonymizer import INPUT_SIZE, Anonymizer
from prichexy_model.flow import Border
from prichexy_model.generator import STRIDE, build_generator
from prichexy_model.multiscale import LEAST_CELLS, MultiscaleAnonymizer
from prichexy_model.privacynet import PrivacyNet
from prichexy_train.data.pool import Pool
from prichexy_train.errors import Misconfigured
from prichexy_train.settings import Section

__all__ = [
    "GENERATOR",
    "AnonymizerSettings",
    "DeformationSettings",
    "PrivacyNetSettings",
    "build_anonymizer",
    "check_size",
    "trained_network",
]

#: The name under which a run's ``best.pt`` holds the weights that anonymise.
GENERATOR: Final = "generator"

Size = Annotated[int, Field(gt=0, multiple_of=STRIDE)]


class DeformationSettings(Section):
    """PriCheXy-Net: a generator of 7.8 million weights that proposes where each pixel comes from.

    ``mu`` and ``mu_coarse`` are bounds in normalised coordinates: 0.01 is 1.3 pixels of 256.
    """

    later = frozenset({"field_size"})

    kind: Literal["deformation"] = "deformation"
    #: Rows and columns of the images; those of the prepared data.
    size: Size = INPUT_SIZE
    #: Rows and columns in which the generator sees an image and proposes its field, at most
    #: ``size``; left out: ``size``. Half of it takes a quarter of the time and loses little of a
    #: field that is smoothed afterwards, at ``size``; see ``generator.DeformationUNet``.
    field_size: Size | None = None
    mu: Annotated[float, Field(ge=0, lt=1)] = 0.01
    #: "corrected": no field, no change; "paper": as published, with its defect at the border.
    border: Border = "corrected"
    #: The bound of an additional, coarse field, which moves contours; 0: none.
    mu_coarse: Annotated[float, Field(ge=0)] = 0.0
    #: Rows and columns of the coarse field, whose outermost cells stay where they are.
    cells: Annotated[int, Field(ge=LEAST_CELLS)] = 8

    @model_validator(mode="after")
    def _has_an_operator(self) -> Self:
        if self.field_size is not None and self.field_size > self.size:
            raise ValueError(f"field_size: {self.field_size} is more than size, {self.size}")
        # Its own refusals, at the time when the file is read.
        _operator(nn.Identity(), self)
        return self


class PrivacyNetSettings(Section):
    """Privacy-Net, a baseline: 0.7 million weights that paint a new image."""

    kind: Literal["privacy-net"]
    #: Rows and columns of the images; those of the prepared data.
    size: Size = INPUT_SIZE


AnonymizerSettings = Annotated[
    DeformationSettings | PrivacyNetSettings, Field(discriminator="kind")
]


def build_anonymizer(settings: DeformationSettings | PrivacyNetSettings) -> nn.Module:
    """Give the module from images to anonymised images, in train mode, on the CPU.

    Its weights are drawn from torch's global generator: see ``randomness.initialising``.
    """
    if isinstance(settings, PrivacyNetSettings):
        return PrivacyNet()
    return _operator(build_generator(settings.field_size), settings)


def check_size(settings: DeformationSettings | PrivacyNetSettings, pool: Pool) -> None:
    """Raise Misconfigured unless the pool's images are of the size that is set."""
    if settings.size != pool.images.size:
        raise Misconfigured(
            f"anonymizer.size is {settings.size}, and the prepared images of {pool.name} have "
            f"{pool.images.size} pixels a side: set one or prepare the other"
        )


def trained_network(anonymizer: nn.Module) -> nn.Module:
    """Give the part of ``anonymizer`` that has weights, under the names a bundle stores them by."""
    return anonymizer.generator if isinstance(anonymizer, Anonymizer) else anonymizer


def _operator(generator: nn.Module, settings: DeformationSettings) -> Anonymizer:
    if settings.mu_coarse == 0:
        return Anonymizer(generator, settings.mu, settings.border, size=settings.size)
    return MultiscaleAnonymizer(
        generator,
        settings.mu,
        settings.border,
        size=settings.size,
        mu_coarse=settings.mu_coarse,
        cells=settings.cells,
    )
