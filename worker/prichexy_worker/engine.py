"""A bundle's networks, loaded once, on their device. The only module here that imports torch."""

from __future__ import annotations

import math
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from prichexy_model.anonymizer import Anonymizer
from prichexy_model.bundle import (
    Bundle,
    load_anonymizer,
    load_classifier,
    load_verifier,
    read_bundle,
)
from prichexy_model.weights import WeightsError
from prichexy_worker.contract import ModelInfo
from prichexy_worker.errors import Misconfigured
from prichexy_worker.risk import FINDINGS_MOVED, RECOGNISED

if TYPE_CHECKING:
    from prichexy_model.classifier import AbnormalityClassifier
    from prichexy_model.verifier import SiameseVerifier

__all__ = ["Engine", "choose_device", "read_judges", "read_model"]

_CUDA: Final = re.compile(r"cuda(:\d{1,3})?")


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """Gives the displacement that the generator proposes, and what the others think of the result.

    ``device`` is "cpu" or "cuda:N", ``device_reason`` a sentence on why, ``model`` what people
    are told about the generator, ``input_size`` the rows and columns it sees, ``folder`` the
    bundle's folder, with every link followed. Verifier and classifier are there where the bundle
    holds them.
    """

    device: str
    device_reason: str
    model: ModelInfo
    input_size: int
    folder: Path
    _anonymizer: Anonymizer
    _verifier: SiameseVerifier | None = None
    _classifier: AbnormalityClassifier | None = None

    @classmethod
    def load(cls, bundle: Path, device: str = "auto", threads: int | None = None) -> Self:
        """Load the bundle in the folder ``bundle`` onto ``device``: auto, cpu, cuda or cuda:N.

        ``threads`` is how many CPU threads torch and OpenCV may use, in this whole process; None
        leaves it as it is. Raises Misconfigured when the bundle is missing or not what its digest
        says, when verifier or classifier cannot judge an image, and when the device is not there.
        """
        chosen, reason = choose_device(device)
        if threads is not None:
            if threads < 1:
                raise Misconfigured("model.threads: give 1 or more")
            torch.set_num_threads(threads)
            cv2.setNumThreads(threads)
        try:
            # All of it from one folder, even if a link to it is moved meanwhile.
            folder = bundle.resolve()
            anonymizer, found = load_anonymizer(folder)
            verifier = load_verifier(folder)[0] if found.verifier else None
            classifier = load_classifier(folder)[0] if found.classifier else None
        except (WeightsError, OSError, RuntimeError, ValueError) as error:
            raise Misconfigured(f"model.bundle: {error}") from error
        try:
            for network in (anonymizer, verifier, classifier):
                if network is not None:
                    # Channels last runs a third faster on a CPU, and no slower on a GPU.
                    network.to(chosen).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        except (RuntimeError, AssertionError) as error:
            raise Misconfigured(
                f"model.device: {chosen} takes no model; set cpu or auto"
            ) from error
        engine = cls(
            device=chosen,
            device_reason=reason,
            model=_info(found),
            input_size=found.input_size,
            folder=folder,
            _anonymizer=anonymizer,
            _verifier=verifier,
            _classifier=classifier,
        )
        engine._try_judges()
        return engine

    @property
    def judges(self) -> frozenset[str]:
        """The figures that ``judged`` gives: those whose network the bundle holds."""
        return _judges(self._verifier, self._classifier)

    def displacement(self, view: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give the displacement of one image: float32 (2, size, size), normalised coordinates.

        ``view`` is float32 (size, size) in [0, 1], as ``view.shrink`` gives it. The same view
        gives the same bytes on the same machine with the same number of threads; between a CPU
        and a GPU the last digits differ. Raises ValueError for another shape or range.
        """
        image = self._seen(view)
        with torch.inference_mode(), self._exact():
            field = self._anonymizer.displacement(image)[0]
            array: NDArray[np.float32] = field.to("cpu", torch.float32).numpy()
        return array

    def judged(self, before: NDArray[np.float32], after: NDArray[np.float32]) -> dict[str, float]:
        """Give the ``judges``' figures of an image before and after, each 0 to 1; see ``risk``.

        Both are views as ``displacement`` takes them. Raises ValueError as it does.
        """
        images = torch.cat([self._seen(before), self._seen(after)])
        figures: dict[str, float] = {}
        with torch.inference_mode(), self._exact():
            if self._verifier is not None:
                embedded = self._verifier.embed(images)
                likeness = self._verifier.compare(embedded[:1], embedded[1:])
                figures[RECOGNISED] = float(likeness.sigmoid())
            if self._classifier is not None:
                found = self._classifier(images).sigmoid()
                figures[FINDINGS_MOVED] = float((found[0] - found[1]).abs().max())
        return figures

    def _try_judges(self) -> None:
        """Judge a plain view. Raises Misconfigured where that fails: with images it would, too."""
        side = np.linspace(0, 1, self.input_size, dtype=np.float32)
        plain = np.minimum.outer(side, side)
        try:
            figures = self.judged(plain, plain)
        except RuntimeError as error:
            raise Misconfigured("model.bundle: its judges cannot look at an image") from error
        for name, figure in figures.items():
            if not math.isfinite(figure):
                raise Misconfigured(f"model.bundle: {name.replace('_', ' ')} is no number")

    def _seen(self, view: NDArray[np.float32]) -> torch.Tensor:
        """Give a view as the networks take it: (1, 1, size, size). Raises ValueError."""
        if view.shape != (self.input_size, self.input_size):
            raise ValueError(f"the generator sees {self.input_size} x {self.input_size} pixels")
        # Negated, so that a NaN is refused too; resizing may overshoot by a rounding.
        if not (view.min() >= -1e-5 and view.max() <= 1 + 1e-5):
            raise ValueError("the generator sees values from 0 to 1")
        return torch.tensor(view, dtype=torch.float32, device=self.device)[None, None]

    def _exact(self) -> AbstractContextManager[Any]:
        """Forbid cuDNN what makes results differ from run to run, and TF32's 10-bit mantissa."""
        if not self.device.startswith("cuda"):
            return nullcontext()
        flags: AbstractContextManager[Any] = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        return flags


def read_model(folder: Path) -> ModelInfo:
    """Give what a bundle says of its generator; no weights are read. Raises Misconfigured."""
    return _info(_read(folder))


def read_judges(folder: Path) -> frozenset[str]:
    """Give the ``judges`` that a bundle's engine would have, likewise. Raises Misconfigured."""
    bundle = _read(folder)
    return _judges(bundle.verifier, bundle.classifier)


def _read(folder: Path) -> Bundle:
    try:
        return read_bundle(folder)
    except WeightsError as error:
        raise Misconfigured(f"model.bundle: {error}") from error


def _judges(verifier: object | None, classifier: object | None) -> frozenset[str]:
    there = {RECOGNISED: verifier, FINDINGS_MOVED: classifier}
    return frozenset(name for name, network in there.items() if network is not None)


def _info(bundle: Bundle) -> ModelInfo:
    return ModelInfo(
        name=bundle.name,
        model_version=bundle.version,
        digest=bundle.digest,
        evidence=bundle.evidence,
        statement=bundle.statement,
        protects=bundle.protects,
    )


def choose_device(setting: str) -> tuple[str, str]:
    """Give the device that ``setting`` (auto, cpu, cuda, cuda:N) means here, and why.

    Raises Misconfigured for anything else and for a GPU that is not there.
    """
    if setting == "cpu":
        return "cpu", "The CPU was chosen by setting."
    if setting != "auto" and not _CUDA.fullmatch(setting):
        raise Misconfigured("model.device: give auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if setting == "auto":
        if count:
            return "cuda:0", f"Found by itself: {torch.cuda.get_device_name(0)}."
        if torch.version.cuda is None:
            return "cpu", "No GPU is used: this torch was built for CPUs only."
        return "cpu", "No GPU is used: torch finds no CUDA device."
    index = int(setting.partition(":")[2] or 0)
    if index >= count:
        raise Misconfigured(
            f"model.device: {setting} is not there (CUDA devices found: {count}); set auto or cpu"
        )
    return f"cuda:{index}", f"Chosen by setting: {torch.cuda.get_device_name(index)}."
