"""Example images before and after each method, with what was done to them.

Only of sets that the report is told to show: whether a set's licence allows it, its owner knows.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from prichexy_model.methods import Deformation
from prichexy_train.data.prepared import PreparedSet
from prichexy_train.errors import Misconfigured
from prichexy_train.methods_from import ChosenMethod, method_from
from prichexy_train.randomness import generator
from prichexy_train.records import MethodOf
from prichexy_train.report.evidence import Evidence
from prichexy_train.report.methods import described

__all__ = ["Example", "Tile", "draw_examples"]

#: Patients shown of a set.
_SHOWN: Final = 2
#: Arrows along each axis of a field.
_ARROWS: Final = 20
_SEED: Final = 1


@dataclass(frozen=True)
class Tile:
    """A picture: ``source`` is a data URL."""

    source: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Example:
    """One radiograph: as it is, then each method's image and what the method did to it."""

    name: str
    tiles: Sequence[Tile]


def draw_examples(evidence: Evidence, sets: Sequence[PreparedSet]) -> tuple[Example, ...]:
    """Give a few test images of each of ``sets``, under every method that ``evidence`` is about.

    Nothing is picked by eye: the first image of the first patients of part test. A trained method
    whose run is not below the evidence's folder, or takes images of another size, is not shown.
    """
    chosen = list(_methods(evidence))
    return tuple(
        Example(
            f"{prepared.name}, test image {number}",
            tuple(_tiles(prepared, index, chosen)),
        )
        for prepared in sets
        for number, index in enumerate(_first_images(prepared), 1)
    )


def _first_images(prepared: PreparedSet) -> Sequence[int]:
    rows = prepared.split("test")
    _, first = np.unique(prepared.catalogue.patients[rows], return_index=True)
    return [int(rows[place]) for place in sorted(first)[:_SHOWN]]


def _methods(evidence: Evidence) -> Iterator[tuple[ChosenMethod, str]]:
    """Give the methods of the records, each once, with its label; not the real images."""
    of = {stored.record.method.digest: stored.record.method for stored in evidence.records}
    trained = {}
    for run in evidence.runs:
        if run.result and "anonymizer" in run.settings:
            one = method_from(f"run:{evidence.folder / run.name}")
            trained[one.of.digest] = one
    ordered = sorted(of.values(), key=lambda method: described(method).order)
    for method in ordered:
        found = trained.get(method.digest) or _plain(method)
        if found is not None and method.name != "real":
            yield found, described(method).label


def _plain(method: MethodOf) -> ChosenMethod | None:
    """Give a method that its name says all of; None for one that needs weights."""
    try:
        found = method_from(method.name)
    except Misconfigured:
        return None
    return found if found.of.digest == method.digest else None


def _tiles(
    prepared: PreparedSet, index: int, methods: Sequence[tuple[ChosenMethod, str]]
) -> Iterator[Tile]:
    image = prepared.images.gather(np.array([index], np.int64))
    name = f"{prepared.name}/{prepared.catalogue.images[index].image_id}"
    yield Tile(_grey(image), "Real", "The radiograph as it is")
    for chosen, label in methods:
        if chosen.size not in {None, image.shape[-1]}:
            continue
        with torch.inference_mode():
            made = chosen.method(image, [generator(_SEED, "anonymise", name)])
            yield Tile(_grey(made), label, f"The radiograph after {label}")
            if isinstance(chosen.method, Deformation):
                yield _field(chosen.method.anonymizer.displacement(image), label)
            else:
                yield _difference(made - image, label)


def _grey(image: Tensor) -> str:
    values = (image[0, 0].clamp(0, 1).numpy() * 255).round().astype(np.uint8)
    return _picture(values)


def _difference(difference: Tensor, label: str) -> Tile:
    values = np.abs(difference[0, 0].numpy())
    most = float(values.max())
    shown = (values / most if most else values) * 255
    words = f"{label}: change of brightness, largest {100 * most:.0f} % of white"
    return Tile(_picture(shown.round().astype(np.uint8)), words, words)


def _field(displacement: Tensor, label: str) -> Tile:
    """Give the displacement's length as colour, with arrows in its direction."""
    size = displacement.shape[-1]
    x, y = displacement[0].numpy() * (size - 1) / 2
    length = np.hypot(x, y)
    most = float(length.max())
    figure = Figure(figsize=(2.56, 2.56), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(length, cmap=colormaps["magma"], vmin=0, vmax=most or 1.0)
    places = np.linspace(0, size - 1, min(_ARROWS, size) + 2)[1:-1].round().astype(int)
    across, down = np.meshgrid(places, places)
    if most:
        axes.quiver(
            across,
            down,
            x[down, across] / most,
            y[down, across] / most,
            color="white",
            angles="xy",
            scale=_ARROWS * 0.8,
            width=0.004,
            alpha=0.85,
        )
    axes.set_axis_off()
    axes.set_xlim(-0.5, size - 0.5)
    axes.set_ylim(size - 0.5, -0.5)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    words = f"{label}: displacement, largest {most:.2f} of {size} pixels"
    return Tile(_url(buffer.getvalue()), words, words)


def _picture(values: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "png", optimize=True)
    return _url(buffer.getvalue())


def _url(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
