"""A study that a person wants made with another model, or with another strength of deformation.

The models are those of the store that ``model.bundle`` points into (docs/decisions/0008), by the
digest of the bundle. What is loaded for one study is let go of after it. The strength is a factor
on the displacement; a field that would fold, so that pixels could not be put back, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from prichexy_worker.contract import MOST_MODELS, Available, ModelInfo, Reason, StudyMessage
from prichexy_worker.errors import Misconfigured, Rejected, Retryable
from prichexy_worker.pipeline import Deformer, Tools

if TYPE_CHECKING:
    from prichexy_worker.engine import Engine

__all__ = ["Choice", "Strengthened", "folds"]

Field = npt.NDArray[np.float32]

_VERSIONS: Final = "versions"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Strengthened:
    """A generator whose displacements are multiplied by ``strength``."""

    engine: Deformer
    strength: float

    @property
    def model(self) -> ModelInfo:
        """Which generator this is; its evidence is about a strength of 1."""
        return self.engine.model

    @property
    def input_size(self) -> int:
        """Rows and columns of the views that it sees."""
        return self.engine.input_size

    @property
    def judges(self) -> frozenset[str]:
        """The figures that ``judged`` gives."""
        return self.engine.judges

    def judged(self, before: Field, after: Field) -> Mapping[str, float]:
        """Give the figures of two views (size, size)."""
        return self.engine.judged(before, after)

    def displacement(self, view: Field) -> Field:
        """Give the displacement (2, size, size) of a view. Raises Rejected FOLDS."""
        field: Field = self.engine.displacement(view) * np.float32(self.strength)
        if folds(field):
            raise Rejected(Reason.FOLDS, f"at strength {self.strength:g}")
        return field


def folds(field: Field) -> bool:
    """Say whether sampling at identity + ``field`` (2, height, width) folds the image anywhere.

    ``field`` is in normalised coordinates, as in ``deform``. Between four samples the map is
    bilinear, and its Jacobian determinant is least in one of the four corners: where it is above
    0 in all of them, the map keeps its orientation everywhere and can be inverted.
    """
    _, height, width = field.shape
    x = field[0].astype(np.float64) * (width - 1) / 2
    y = field[1].astype(np.float64) * (height - 1) / 2
    # How the place that is sampled changes from a sample to the next one right of it, and below.
    xx, yx = 1 + np.diff(x, axis=1), np.diff(y, axis=1)
    xy, yy = np.diff(x, axis=0), 1 + np.diff(y, axis=0)
    for rows in (slice(None, -1), slice(1, None)):
        for columns in (slice(None, -1), slice(1, None)):
            determinant = xx[rows] * yy[:, columns] - yx[rows] * xy[:, columns]
            if not (determinant > 0).all():
                return True
    return False


class Choice:
    """The models beside the one in use, and the tools for a study that asks for one of them."""

    def __init__(
        self,
        bundle: Path,
        load: Callable[[Path], Engine],
        read: Callable[[Path], ModelInfo],
    ) -> None:
        """Look beside ``bundle``; ``load`` gives the engine of a folder, ``read`` what it says.

        Both raise Misconfigured.
        """
        self._bundle = bundle
        self._load = load
        self._read = read

    def available(self) -> tuple[Available, ...]:
        """Give the models of the store, the newest first, as many as are announced."""
        found = []
        for folder in sorted(self._versions(), key=_changed, reverse=True):
            try:
                found.append(Available(folder.name, self._read(folder)))
            except Misconfigured:
                continue
            if len(found) == MOST_MODELS:
                break
        return tuple(found)

    def tools(self, message: StudyMessage, tools: Tools) -> Tools:
        """Give ``tools`` with the model and the strength that ``message`` asks for.

        Raises Retryable MODEL_UNAVAILABLE.
        """
        if message.bundle:
            tools = replace(tools, engine=self._engine(message.bundle))
        if message.strength == 1:
            return tools
        strengthened = Strengthened(tools.engine, message.strength)
        return replace(tools, engine=strengthened, strength=message.strength)

    def _engine(self, digest: str) -> Engine:
        folder = next((one for one in self._versions() if one.name == digest), None)
        if folder is None:
            raise Retryable(Reason.MODEL_UNAVAILABLE, "not in this worker's store")
        try:
            return self._load(folder)
        except Misconfigured:
            raise Retryable(Reason.MODEL_UNAVAILABLE, "it cannot be loaded") from None

    def _versions(self) -> tuple[Path, ...]:
        """Give the bundles' folders; none where ``bundle`` lies in no store."""
        try:
            place = self._bundle.resolve(strict=True).parent
            if place.name != _VERSIONS:
                return ()
            return tuple(one for one in place.iterdir() if _DIGEST.fullmatch(one.name))
        except (OSError, RuntimeError):  # RuntimeError: a loop of links
            return ()


def _changed(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0
