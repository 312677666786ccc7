"""Scores the pipeline by MIDI-B's ten checks, with the deformation on and off, and seeks canaries.

    PYTHONPATH=tests python benchmarks/deidentification_score.py [--write PAGE] [--keep FOLDER]

The objects are those of ``prichexy_testing.canaries``, and radiographs with a name written into
the picture. ``--keep`` leaves originals, answer key and results in a folder; ``--write`` puts the
tables into a page.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pydicom
from PIL import Image, ImageDraw, ImageFont

from prichexy_testing.canaries import Canary, specimens, survivors
from prichexy_testing.dicoms import phantom, radiograph_dataset, write
from prichexy_testing.finders import Finds
from prichexy_testing.fuzzing import still_tools
from prichexy_testing.midi_b import (
    Check,
    Renamed,
    Scored,
    answer_key,
    hidden_text,
    score,
    totals,
    write_key,
)
from prichexy_testing.sections import replace_section, table
from prichexy_testing.shared_data import REPO
from prichexy_worker.engine import Engine
from prichexy_worker.errors import Rejected
from prichexy_worker.pipeline import Deformer, Tools, anonymize
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.text import TextFinder

NAMES = ("DOE^JANE", "GARCIA MARIA", "MRN 00482917", "SMITH, JOHN", "03/12/1956", "Born 4.11.1948")


class Original(NamedTuple):
    """One object of the run: its name, its bytes, what was planted, its lines of the key."""

    name: str
    content: bytes
    canaries: tuple[Canary, ...]
    checks: list[Check]

    @property
    def instance(self) -> str:
        """The original's SOPInstanceUID."""
        dataset = pydicom.dcmread(BytesIO(self.content), force=True)
        return str(dataset.SOPInstanceUID)


def planted() -> Iterator[Original]:
    """Give the objects with planted values in their headers."""
    for one in specimens():
        checks = list(answer_key(one.content, one.canaries))
        yield Original(one.name, one.content, one.canaries, checks)


def burned_in() -> Iterator[Original]:
    """Give radiographs with a name, a number or a date in the picture."""
    for number, name in enumerate(NAMES):
        values = phantom(768, 640, seed=number).copy()
        picture = Image.new("L", (640, 768))
        font = ImageFont.load_default(28)
        left, top = 40 + 30 * number, 40 + 110 * number
        ImageDraw.Draw(picture).text((left, top), name, font=font, fill=255)
        mask = np.asarray(picture) > 127
        values[mask] = 4095 if values[mask].mean() < 2048 else 0
        y, x = np.nonzero(mask)
        box = (int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1)
        uid = f"1.2.826.0.1.3680043.10.779.{number}"
        content = write(radiograph_dataset(values=values, SOPInstanceUID=f"{uid}.3"))
        yield Original(f"text {number}", content, (), [hidden_text(content, name, box)])


def renamed(pseudonyms: Pseudonyms, originals: list[Original]) -> Renamed:
    """Give what UIDs and patients became, by the key alone."""
    uids = {
        check.value: pseudonyms.uid(check.value)
        for one in originals
        for check in one.checks
        if check.action == "uid_consistent"
    }
    patients = {}
    for one in originals:
        dataset = pydicom.dcmread(BytesIO(one.content), force=True)
        old, issuer = str(dataset.PatientID), str(dataset.get("IssuerOfPatientID", ""))
        patients[old] = pseudonyms.patient_id(old, issuer, study_uid=str(dataset.StudyInstanceUID))
    return Renamed(uids, patients)


class Reads:
    """Tells whether text is legible within a box, by the worker's own search for text."""

    def __init__(self, finder: TextFinder, text: str) -> None:
        self._finder, self._text = finder, text

    def __call__(self, values: np.ndarray, box: tuple[int, int, int, int]) -> str:
        """Give the text that was there, as if read, where text is found in its place."""
        shown = (values / max(1, int(values.max()))).astype(np.float32)
        regions = [region for region in self._finder.find(shown) if not region.marker]
        across = [
            region.left < box[2]
            and region.right > box[0]
            and region.top < box[3]
            and region.bottom > box[1]
            for region in regions
        ]
        return self._text if any(across) else ""


class Run(NamedTuple):
    """What one way of running came to."""

    scored: list[Scored]
    released: int
    surviving: int
    rejected: Counter[str]


def run(originals: list[Original], engine: Deformer, finder: TextFinder, keep: Path | None) -> Run:
    """Send all objects through the pipeline, search the results and score them."""
    pseudonyms = still_tools().pseudonyms
    mapping = renamed(pseudonyms, originals)
    scored: list[Scored] = []
    rejected: Counter[str] = Counter()
    surviving = released = 0
    for one in originals:
        # Made of 64 pixels a side, objects with planted headers show nothing that could be read.
        tools = Tools(engine, pseudonyms, Finds() if one.canaries else finder)
        results = {}
        try:
            result = anonymize(one.content, tools)
        except Rejected as error:
            rejected[error.reason.value] += 1
        else:
            released += 1
            results[one.instance] = result.content
            surviving += len(survivors(result.content, one.canaries))
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{result.sop_uid}.dcm").write_bytes(result.content)
        for check in one.checks:
            scored += score([check], results, mapping, Reads(finder, check.value))
    return Run(scored, released, surviving, rejected)


def report(runs: dict[str, Run], originals: list[Original]) -> str:
    """Give the tables in Markdown."""
    canaries = [canary for one in originals for canary in one.canaries]
    by_action = {name: totals(run.scored) for name, run in runs.items()}
    rows: list[list[object]] = []
    for action in next(iter(by_action.values())):
        cells = [by_action[name][action] for name in runs]
        rows.append([f"`{action}`", *(f"{passed} / {all_}" for passed, all_ in cells)])
    sums = [
        [sum(column) for column in zip(*by_action[name].values(), strict=True)] for name in runs
    ]
    rows.append(["**all**", *(f"**{passed} / {all_}**" for passed, all_ in sums)])
    rows.append(["share", *(f"{100 * passed / all_:.2f} %" for passed, all_ in sums)])
    kinds = len({canary.place for canary in canaries})
    lines = [
        f"{len(originals)} objects, {len(canaries)} planted values in {kinds} kinds of places.",
        "",
        table(["passed / all", *runs], rows),
        "",
        table(
            ["", *runs],
            [
                ["objects released", *(run.released for run in runs.values())],
                ["turned away", *(told(run.rejected) for run in runs.values())],
                ["planted values that survive", *(run.surviving for run in runs.values())],
            ],
        ),
    ]
    return "\n".join(lines)


def told(rejected: Counter[str]) -> str:
    """Give the reasons and how often each was the one."""
    return ", ".join(f"{count} {reason}" for reason, count in rejected.items()) or "0"


def main() -> int:
    """Run; the exit code is 1 when a planted value survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="a page with a section <!-- score -->")
    parser.add_argument("--keep", type=Path, help="leave originals, key and results here")
    chosen = parser.parse_args()
    logging.disable()
    cv2.setNumThreads(1)
    originals = [*planted(), *burned_in()]
    if chosen.keep is not None:
        (chosen.keep / "originals").mkdir(parents=True, exist_ok=True)
        write_key(chosen.keep / "key.csv", [check for one in originals for check in one.checks])
        for number, one in enumerate(originals):
            (chosen.keep / "originals" / f"{number:03}.dcm").write_bytes(one.content)
    finder = TextFinder()
    bundle = Engine.load(REPO / "model" / "bundle", device="cpu", threads=1)
    runs = {}
    for name, engine in (("deformation off", still_tools().engine), ("deformation on", bundle)):
        keep = None if chosen.keep is None else chosen.keep / name.replace(" ", "-")
        runs[name] = run(originals, engine, finder, keep)
    text = report(runs, originals)
    sys.stdout.write(text + "\n")
    for name, done in runs.items():
        for entry in done.scored:
            if not entry.passed and entry.check.action != "pixels_retained":
                sys.stdout.write(f"{name}: {entry.check.action} {entry.check.tag_ds}\n")
    if chosen.write is not None:
        replace_section(chosen.write, "score", text)
    return int(any(one.surviving for one in runs.values()))


if __name__ == "__main__":
    sys.exit(main())
