"""One instance: from the bytes of an original to the bytes that may leave.

Each step is a function of its own module; here stands only their order. Nothing in here knows
Orthanc, Celery or a file, so the same function serves the worker and the command line.
"""

from __future__ import annotations

import hashlib
import io
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset

from prichexy_worker import (
    deform,
    gate,
    header,
    inspection,
    pixels,
    risk,
    side_by_side,
    text,
    view,
)
from prichexy_worker.contract import RELEASABLE, SOFTWARE_VERSION, Box, Looked, ModelInfo
from prichexy_worker.errors import Doubt, Rejected
from prichexy_worker.pixels import Radiograph
from prichexy_worker.ports import Anonymized
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.settings import Syntax

__all__ = ["Anonymized", "Clock", "Deformer", "Stopwatch", "Tools", "anonymize"]

Clock = Callable[[], float]


class Deformer(risk.Judge, Protocol):
    """What the pipeline needs of a bundle's networks; ``engine.Engine`` is one."""

    @property
    def model(self) -> ModelInfo:
        """Which generator this is."""

    def displacement(self, view: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Give the displacement (2, size, size) of a view (size, size)."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What every instance is anonymised with.

    ``masks`` are filled whatever the search for text finds. ``pseudonyms`` are those of the
    profile's project, ``retired`` those of keys of before. ``looked`` are the decisions of people
    over single images, by the digest of the image's file. ``strength`` is the factor on the
    displacement that ``engine`` has in it already. ``picture_side`` is the longest side, in pixels,
    of the pictures of before and after; 0 for none. ``tolerated`` is how much may be left of the
    patient and changed of the findings.
    """

    engine: Deformer
    pseudonyms: Pseudonyms
    text_finder: text.Finder
    syntax: Syntax = "explicit-little-endian"
    masks: tuple[text.Mask, ...] = ()
    profile: header.Profile = header.BASIC
    retired: tuple[Pseudonyms, ...] = ()
    looked: Mapping[str, Looked] = field(default_factory=dict)
    strength: float = 1.0
    picture_side: int = 0
    tolerated: risk.Tolerated = risk.ANYTHING

    def study_uid(self, uid: str) -> str:
        """Give the StudyInstanceUID that a study has where it is exported."""
        return self.profile.study_uid(self.pseudonyms, uid)

    def retired_study_uids(self, uid: str) -> frozenset[str]:
        """Give those that it had under keys that were retired, and has no longer."""
        then = {self.profile.study_uid(pseudonyms, uid) for pseudonyms in self.retired}
        return frozenset(then - {self.study_uid(uid)})

    def made_with(self) -> dict[str, str]:
        """Give what decides over a result, as reports call it (``contract.StudyReport``)."""
        return {
            "key_id": self.pseudonyms.key_id,
            "profile": self.profile.digest,
            "edition": header.TABLE_EDITION,
            "model": self.engine.model.digest,
        }


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
    decode, text, deform, judge, deidentify, encode, check and, with ``picture_side``, draw, in
    seconds.
    Raises Rejected when the instance cannot be made safe; where a person may decide, with its
    ``doubts``.
    """
    watch = Stopwatch(clock)
    digest = hashlib.sha256(content).hexdigest()
    looked = tools.looked.get(digest)
    with watch.step("inspect"):
        source = inspection.read(content)
        inspection.inspect(source)
    with watch.step("decode"):
        original = pixels.decode(source)
        pixels.refuse_padding(original)
    with watch.step("text"), _in_doubt(digest, original, source):
        cleaned = text.clean(
            original,
            source,
            tools.text_finder,
            tools.masks,
            claimed=inspection.speaks_of_text(source),
            looked=looked,
        )
        radiograph = cleaned.radiograph
    with watch.step("deform"):
        displayed = view.displayed(radiograph, source)
        displacement = tools.engine.displacement(view.shrink(displayed, tools.engine.input_size))
        deformed = deform.warp(radiograph, displacement)
        measures = deform.measure(radiograph, deformed, displacement) | cleaned.measures()
    with watch.step("judge"):
        measures |= risk.measured(tools.engine, radiograph, deformed, source)
        tools.tolerated.check(measures)
    with watch.step("deidentify"):
        provenance = header.Provenance(
            software_version=SOFTWARE_VERSION,
            model=tools.engine.model,
            key_id=tools.pseudonyms.key_id,
            deformed=measures["changed_share"] > 0,
            erased=measures["text_erased_share"] > 0,
            strength=tools.strength,
        )
        result = header.deidentify(source, tools.pseudonyms, provenance, tools.profile)
    with watch.step("encode"):
        result = pixels.with_pixels(result, deformed, syntax=tools.syntax)
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, result, enforce_file_format=True)
    moved = measures["max_displacement_px"]
    with watch.step("check"), _in_doubt(digest, original, source, moved):
        released = gate.release(
            buffer.getvalue(),
            original=content,
            radiograph=original,
            finder=tools.text_finder,
            own_texts=header.own_texts(provenance, tools.profile),
            allowed=header.allowed(source, result, tools.profile),
            markers=cleaned.kept,
            moved=moved,
            looked=looked,
        )
    shown = None
    if tools.picture_side:
        with watch.step("draw"):
            shown = side_by_side.drawn(
                original, deformed, displacement, measures, source, tools.picture_side
            )
    return Anonymized(
        content=released,
        patient_id=str(result.PatientID),
        study_uid=str(result.StudyInstanceUID),
        series_uid=str(result.SeriesInstanceUID),
        sop_uid=str(result.SOPInstanceUID),
        measures=measures,
        durations=dict(watch.seconds),
        side_by_side=shown,
    )


@contextmanager
def _in_doubt(
    digest: str, original: Radiograph, source: Dataset, moved: float = 0.0
) -> Iterator[None]:
    """Give a refusal that a person may decide over the whole image with it, as it came in.

    What was found after pixels were moved, by ``moved`` of them at most, came from that far around.
    """
    try:
        yield
    except Rejected as error:
        if error.reason in RELEASABLE:
            rows, columns = original.values.shape
            more = math.ceil(moved)
            error.doubts = (
                Doubt(
                    digest=digest,
                    rows=rows,
                    columns=columns,
                    # One that two views show is one.
                    boxes=tuple(
                        dict.fromkeys(_grown(box, more, rows, columns) for box in error.findings)
                    ),
                    # The last of the views shows all that is drawn in the image.
                    picture=text.whole_picture(view.searched(original, source)[-1]),
                ),
            )
        raise


def _grown(box: Box, more: int, rows: int, columns: int) -> Box:
    left, top, right, bottom = box
    return (
        max(0, left - more),
        max(0, top - more),
        min(columns, right + more),
        min(rows, bottom + more),
    )
