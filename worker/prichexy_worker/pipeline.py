"""One instance: from the bytes of an original to the bytes that may leave.

Each step is a function of its own module; here stands only their order. Nothing in here knows
Orthanc, Celery or a file, so the same function serves the worker and the command line.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pydicom

from prichexy_worker import deform, gate, header, inspection, pixels, text, view
from prichexy_worker.contract import SOFTWARE_VERSION, ModelInfo
from prichexy_worker.ports import Anonymized
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.settings import Syntax

__all__ = ["Anonymized", "Clock", "Deformer", "Stopwatch", "Tools", "anonymize"]

Clock = Callable[[], float]


class Deformer(Protocol):
    """What the pipeline needs of the generator; ``engine.Engine`` is one."""

    @property
    def model(self) -> ModelInfo:
        """Which generator this is."""

    @property
    def input_size(self) -> int:
        """Rows and columns of the views that it sees."""
        ...

    def displacement(self, view: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Give the displacement (2, size, size) of a view (size, size)."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What every instance is anonymised with.

    ``masks`` are filled whatever the search for text finds. ``pseudonyms`` are those of the
    profile's project, ``retired`` those of keys of before.
    """

    engine: Deformer
    pseudonyms: Pseudonyms
    text_finder: text.Finder
    syntax: Syntax = "explicit-little-endian"
    masks: tuple[text.Mask, ...] = ()
    profile: header.Profile = header.BASIC
    retired: tuple[Pseudonyms, ...] = ()

    def study_uid(self, uid: str) -> str:
        """Give the StudyInstanceUID that a study has where it is exported."""
        return self.profile.study_uid(self.pseudonyms, uid)

    def retired_study_uids(self, uid: str) -> frozenset[str]:
        """Give those that it had under keys that were retired, and has no longer."""
        then = {self.profile.study_uid(pseudonyms, uid) for pseudonyms in self.retired}
        return frozenset(then - {self.study_uid(uid)})


class Stopwatch:
    """Adds up seconds by the name of a step."""

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count the time of the block, also when it raises."""
        start = self._clock()
        try:
            yield
        finally:
            self.add(name, self._clock() - start)

    def add(self, name: str, seconds: float) -> None:
        """Count seconds that were measured elsewhere."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


def anonymize(content: bytes, tools: Tools, clock: Clock = time.perf_counter) -> Anonymized:
    """Give the anonymised instance of the DICOM file ``content``.

    The same content, key and model give the same bytes. ``durations`` has the steps inspect,
    decode, text, deform, deidentify, encode and check, in seconds. Raises
    Rejected when the instance cannot be made safe.
    """
    watch = Stopwatch(clock)
    with watch.step("inspect"):
        source = inspection.read(content)
        inspection.inspect(source)
    with watch.step("decode"):
        original = pixels.decode(source)
        pixels.refuse_padding(original)
    with watch.step("text"):
        claimed = inspection.speaks_of_text(source)
        cleaned = text.clean(original, source, tools.text_finder, tools.masks, claimed=claimed)
        radiograph = cleaned.radiograph
    with watch.step("deform"):
        displayed = view.displayed(radiograph, source)
        displacement = tools.engine.displacement(view.shrink(displayed, tools.engine.input_size))
        deformed = deform.warp(radiograph, displacement)
        measures = deform.measure(radiograph, deformed, displacement) | cleaned.measures()
    with watch.step("deidentify"):
        provenance = header.Provenance(
            software_version=SOFTWARE_VERSION,
            model=tools.engine.model,
            key_id=tools.pseudonyms.key_id,
            deformed=measures["changed_share"] > 0,
            erased=measures["text_erased_share"] > 0,
        )
        result = header.deidentify(source, tools.pseudonyms, provenance, tools.profile)
    with watch.step("encode"):
        result = pixels.with_pixels(result, deformed, syntax=tools.syntax)
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, result, enforce_file_format=True)
    with watch.step("check"):
        released = gate.release(
            buffer.getvalue(),
            original=content,
            radiograph=original,
            finder=tools.text_finder,
            own_texts=header.own_texts(provenance, tools.profile),
            allowed=header.allowed(source, result, tools.profile),
            markers=cleaned.kept,
            moved=measures["max_displacement_px"],
        )
    return Anonymized(
        content=released,
        patient_id=str(result.PatientID),
        study_uid=str(result.StudyInstanceUID),
        series_uid=str(result.SeriesInstanceUID),
        sop_uid=str(result.SOPInstanceUID),
        measures=measures,
        durations=dict(watch.seconds),
    )
