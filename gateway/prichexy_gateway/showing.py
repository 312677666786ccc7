"""Makes the picture of one study that went through the gateway: original against export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from prichexy_gateway.dicom_files import DicomFile
from prichexy_gateway.errors import Failed
from prichexy_gateway.picture import Panels, draw, save_png
from prichexy_worker import deform, header, inspection, pixels, view
from prichexy_worker.contract import SOFTWARE_VERSION, ModelInfo
from prichexy_worker.engine import Engine
from prichexy_worker.errors import Retryable
from prichexy_worker.export import create_destinations
from prichexy_worker.ports import InstanceName, Readable
from prichexy_worker.project import read_project
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.settings import Settings

__all__ = ["exported_copy", "picture_of", "warning_of"]


def exported_copy(
    original: Dataset,
    target: Readable,
    pseudonyms: Pseudonyms,
    profile: header.Profile,
    model: ModelInfo,
) -> bytes:
    """Give what the export target holds of an original. Raises Failed when it holds nothing."""
    provenance = header.Provenance(SOFTWARE_VERSION, model, pseudonyms.key_id, deformed=True)
    result = header.deidentify(original, pseudonyms, provenance, profile)
    named = InstanceName(
        patient_id=str(result.PatientID),
        study_uid=str(result.StudyInstanceUID),
        series_uid=str(result.SeriesInstanceUID),
        sop_uid=str(result.SOPInstanceUID),
    )
    try:
        content = target.fetch(named)
    except Retryable as error:
        raise Failed(f"No picture: {error}") from None
    if content is None:
        raise Failed("The export target does not hold the study that was exported.")
    return content


def picture_of(file: DicomFile, settings: Settings, place: Path) -> ModelInfo:
    """Write the picture of one exported file to ``place``; give the model that deformed it.

    ``settings`` are those of the worker that exported it. "After" is what the export target holds.
    The displacement is computed again with the same
    model, because nothing that leaves the gateway carries it.
    """
    original = inspection.read(file.path.read_bytes())
    profile = read_project(settings.profile.file).profile
    pseudonyms = profile.pseudonyms(Pseudonyms.from_key_file(settings.pseudonyms.key_file))
    engine = Engine.load(settings.model.bundle, device="cpu")
    with _readable(settings) as target:
        copy = exported_copy(original, target, pseudonyms, profile, engine.model)
    result = inspection.read(copy)
    before, after = _view(original), _view(result)
    field = engine.displacement(view.shrink(before, engine.input_size))
    rows, columns = before.shape
    panels = Panels(
        before=before,
        after=after,
        displacement=deform.displacement_in_pixels(field, rows, columns),
        caption=f"PriCheXy gateway, {rows} by {columns} pixels, model {engine.model.name} "
        f"{engine.model.model_version}",
        warning=warning_of(engine.model),
    )
    save_png(draw(panels), place)
    return engine.model


@contextmanager
def _readable(settings: Settings) -> Iterator[Readable]:
    """Give a target that studies without a choice of their own go to. Raises Failed."""
    destinations = create_destinations(settings.export_targets())
    with ExitStack() as stack:
        for target in destinations.targets.values():
            stack.callback(target.close)
        for target in destinations.route(()).chosen.values():
            if isinstance(target, Readable):
                yield target
                return
        raise Failed("No picture: no export target gives back what it was sent.")


def _view(dataset: Dataset) -> NDArray[np.float32]:
    return view.displayed(pixels.decode(dataset), dataset)


def warning_of(model: ModelInfo) -> str:
    """Say what is not known about the model, or nothing when it was measured to protect."""
    if model.evidence == "untrained":
        return "Untrained weights: no privacy is claimed."
    if model.evidence == "trained":
        return "Trained weights, not fully measured: no privacy is claimed."
    return "" if model.protects else "Measured: no protection was shown."
