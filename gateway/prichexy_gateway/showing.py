"""Makes the picture of one study that went through the gateway: original against export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from prichexy_gateway.client import OrthancClient
from prichexy_gateway.dicom_files import DicomFile
from prichexy_gateway.errors import Failed
from prichexy_gateway.picture import Panels, draw, save_png
from prichexy_worker import deform, inspection, pixels, view
from prichexy_worker.contract import ModelInfo
from prichexy_worker.engine import Engine
from prichexy_worker.pseudonyms import Pseudonyms

__all__ = ["exported_copy", "picture_of"]


def exported_copy(original: Dataset, export: OrthancClient, pseudonyms: Pseudonyms) -> bytes:
    """Give what the export Orthanc holds of an original. Raises Failed when it holds nothing."""
    found = export.find("Instance", pseudonyms.uid(str(original.SOPInstanceUID)))
    if not found:
        raise Failed("The export Orthanc does not hold the study that was exported.")
    return export.instance(found[0])


def picture_of(
    file: DicomFile, export: OrthancClient, key_file: Path, bundle: Path, place: Path
) -> ModelInfo:
    """Write the picture of one exported file to ``place``; give the model that deformed it.

    "After" is what the export Orthanc holds. The displacement is computed again with the same
    model, because nothing that leaves the gateway carries it.
    """
    original = inspection.read(file.path.read_bytes())
    pseudonyms = Pseudonyms.from_key_file(key_file)
    result = inspection.read(exported_copy(original, export, pseudonyms))
    before, after = _view(original), _view(result)
    engine = Engine.load(bundle, device="cpu")
    field = engine.displacement(view.shrink(before))
    rows, columns = before.shape
    panels = Panels(
        before=before,
        after=after,
        displacement=deform.displacement_in_pixels(field, rows, columns),
        caption=f"PriCheXy gateway, {rows} by {columns} pixels, model {engine.model.name} "
        f"{engine.model.model_version}",
        warning=_warning(engine.model),
    )
    save_png(draw(panels), place)
    return engine.model


def _view(dataset: Dataset) -> NDArray[np.float32]:
    return view.displayed(pixels.decode(dataset), dataset)


def _warning(model: ModelInfo) -> str:
    """Say what is not known about the model, or nothing when its privacy was measured."""
    if model.evidence == "untrained":
        return "Untrained weights: no privacy is claimed."
    if model.evidence == "trained":
        return "Trained weights, not yet attacked: no privacy is claimed."
    return ""
