"""The images of an exported study side by side: before, after, displacement, difference.

    GET /studies/{job_id}/image-{number}-{part}.jpg   one picture, part of contract.IMAGE_PARTS

They show patients' data and are for operators; the audit trail says who looked. On the study's page
they stand folded up, so that a browser asks for none before somebody opens them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prichexy_plugin.chain import PLUGIN
from prichexy_plugin.dashboard.from_workers import NotKept, holding_study
from prichexy_plugin.dashboard.http import Response
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.pictures import Pictures
from prichexy_plugin.records import StudyRecord
from prichexy_worker.contract import IMAGE_PARTS, MOST_IMAGES, Claim, ImagePictures, State

__all__ = ["ADDRESS", "Shown", "answer_image", "images_of", "take_images"]

ADDRESS: Final = re.compile(
    rf"/studies/([0-9a-f]{{32}})/image-([1-9][0-9]?)-({'|'.join(IMAGE_PARTS)})\.jpg"
)
#: One that changed nothing at all (``deform.IDENTICAL_DB``).
_IDENTICAL_DB: Final = 200


@dataclass(frozen=True, slots=True)
class _Picture:
    """One of an image's four pictures: its address begins at the page's own, less ``root``."""

    part: str
    title: str
    alt: str
    explained: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """One image as the page shows it; ``facts`` are titles with values."""

    number: int
    size: str
    facts: tuple[tuple[str, str], ...]
    pictures: tuple[_Picture, ...]


def take_images(ledger: Ledger, pictures: Pictures, version: int) -> Callable[[Any], object]:
    """Give what keeps ImagePictures beside their study, and answers with a Claim.

    The first image takes the place of all that was kept of the study before. Raises NotKept.
    """

    def take(data: Any) -> object:
        shown = ImagePictures.from_json(data)
        study = holding_study(ledger, shown)
        if study is None:
            return Claim(proceed=False).to_json(version)
        if shown.number == 1:
            count = shown.count * len(IMAGE_PARTS)
            ledger.note_pictures(shown.job_id, count, study.worker_id or PLUGIN)
            if not pictures.delete(study.study_id):
                raise NotKept
        if not pictures.keep_image(study.study_id, shown.number, shown.figures, shown.pictures):
            raise NotKept
        return Claim(proceed=True, attempt=shown.attempt).to_json(version)

    return take


def answer_image(ledger: Ledger, pictures: Pictures, match: re.Match[str], actor: str) -> Response:
    """Give the picture of an address; the audit trail says who looked."""
    study, number = ledger.study(match[1]), int(match[2])
    known = study is not None and number <= _count(study)
    picture = pictures.part(study.study_id, number, match[3]) if study and known else None
    if picture is None:
        return Response(404, "text/plain; charset=utf-8", "There is no such picture.\n")
    ledger.note_picture_shown(match[1], actor)
    return Response(200, "image/jpeg", picture)


def images_of(study: StudyRecord, pictures: Pictures | None) -> tuple[Shown, ...]:
    """Give the images that a study's page shows, as far as they are kept."""
    if pictures is None:
        return ()
    found = (
        (number, pictures.figures(study.study_id, number)) for number in range(1, 1 + _count(study))
    )
    return tuple(_shown(number, figures) for number, figures in found if figures is not None)


def _count(study: StudyRecord) -> int:
    if study.state is not State.EXPORTED or not study.pictured:
        return 0
    return min(int(study.measures.get("images_shown", 0)), MOST_IMAGES)


def _share(figure: float) -> str:
    """Write a share in per cent, and never as none or all what is not."""
    if 0 < figure < 0.01:
        return "less than 1%"
    return "more than 99%" if 0.99 < figure < 1 else f"{figure:.0%}"


def _shown(number: int, figures: Mapping[str, float]) -> Shown:
    def figure(name: str) -> float:
        return float(figures.get(name, 0.0))

    rows, columns = figure("rows"), figure("columns")
    largest, largest_mm = figure("max_displacement_px"), figure("max_displacement_mm")
    millimetres = f" = {largest_mm:.2g} mm" if largest_mm else ""
    scale = f"{largest:.1f} px{millimetres}"
    plane = " at the detector; in the patient it is less" if figures.get("at_detector") else ""
    moved = f"{largest:.1f} px"
    if largest_mm:
        moved += f", {largest_mm:.2g} mm{plane}"
    psnr = figure("psnr_db")
    facts = (
        ("Moved at most", moved),
        ("Moved on average", f"{figure('mean_displacement_px'):.1f} px"),
        ("Pixels that changed", f"{figure('changed_share'):.0%}"),
        ("Likeness", "nothing changed" if psnr >= _IDENTICAL_DB else f"{psnr:.1f} dB"),
        *(
            (words, _share(figures[name]))
            for name, words in (
                ("max_recognised", "Recognised as the patient's"),
                ("max_finding_change", "Greatest change of a finding"),
            )
            if name in figures
        ),
    )
    # Where pixels are no squares, one colour is no one length in millimetres.
    square = figures.get("row_spacing_mm") == figures.get("column_spacing_mm")
    legend = f"From 0 (dark violet) to {scale if square else f'{largest:.1f} px'} (yellow)."
    arrows = figure("arrow_length")
    explained_arrows = (
        f"Arrows show which way the image went, {arrows:.1f} times as long as it is there."
        if arrows
        else "Nothing moved."
    )
    full = figure("full_difference")
    return Shown(
        number,
        f"{columns:.0f} × {rows:.0f} pixels",
        facts,
        (
            _Picture(
                "original",
                "Original",
                f"Image {number} as it came in",
                ("As it came in, with any text in it.",),
            ),
            _Picture(
                "anonymised",
                "Anonymised",
                f"Image {number} as it was exported",
                ("As it was exported, in the same grey.",),
            ),
            _Picture(
                "displacement",
                "Displacement",
                f"How far each part of image {number} was moved: at most {moved}",
                (legend, explained_arrows),
            ),
            _Picture(
                "difference",
                "Difference",
                f"Where image {number} became brighter or darker",
                (
                    "Orange became brighter, blue darker, black stayed.",
                    f"Full colour is {full:.0%} of the grey range, or more.",
                ),
            ),
        ),
    )
