"""The page on ChestX-ray14's own lists, from what ``data.official.survey`` counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prichexy_train.report.wording import NONE, counted, interval_text, listed, percent

__all__ = ["official_page"]


def official_page(found: Mapping[str, Any]) -> str:
    """Give the survey ``found`` as Markdown; it holds no figure that is not in there."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    images = found["images"]
    yield "# ChestX-ray14: what its lists say by themselves"
    yield ""
    yield (
        "The official tables and the pairs published with PriCheXy-Net, read as training reads "
        "them, with no image at hand. Every figure is written by `prichexy-train official-lists`; "
        "the same numbers, unrounded, are in [official-lists.json](official-lists.json)."
    )
    yield ""
    yield (
        f"{counted(images['images'], 'image')} of {counted(images['patients'], 'patient')}, "
        f"{images['patients_with_several']:,} of whom have several; "
        f"{images['no_finding']:,} images without a finding, "
        f"{images['ages_unknown']:,} without a usable age. " + _problems(found["problems"])
    )
    yield from _splits(found)
    yield from _pairs(found)
    yield from _controls(found)
    yield ""
    yield "## Made from"
    yield ""
    yield from _table(
        ("File", "SHA-256 of its text"),
        ([name, f"`{digest[:16]}…`"] for name, digest in found["files"].items()),
        texts=2,
    )


def _problems(problems: Mapping[str, int]) -> str:
    if not problems:
        return "The reader found nothing wrong with them."
    each = (f"{kind} ({number:,})" for kind, number in problems.items())
    return f"What the reader found wrong: {'; '.join(each)}."


def _splits(found: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "## Split"
    yield ""
    yield from _table(
        ("Part", "Images", "Patients", "with several images"),
        (
            [part, *(f"{one[key]:,}" for key in ("images", "patients", "patients_with_several"))]
            for part, one in found["parts"].items()
        ),
    )
    yield ""
    shared = (f"{parts} {number:,}" for parts, number in found["patients_in_two_parts"].items())
    lists = (f"{name}: {number:,}" for name, number in found["lists"].items())
    yield f"Patients in two parts: {', '.join(shared)}. Images by list: {', '.join(lists)}."


def _pairs(found: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "## Pairs"
    yield ""
    heads = (
        "List",
        "Origin",
        "Lines",
        "Pairs resolved",
        "Of one patient",
        "Patients behind these",
        "Share of 50 patients (%)",
        "Median follow-up gap",
        "Images",
    )
    yield from _table(
        heads,
        (
            [
                name,
                one["drawn"],
                NONE if one["lines"] is None else f"{one['lines']:,}",
                f"{one['pairs']:,}",
                f"{one['same']:,} ({percent(one['same'] / one['pairs'])} %)",
                f"{one['patients_behind_same']:,}",
                percent(one["share_of_top_50"]),
                NONE if one["median_followup_gap"] is None else f"{one['median_followup_gap']:g}",
                f"{one['images']:,}",
            ]
            for name, one in found["pairs"].items()
        ),
        texts=2,
    )
    yield ""
    yield (
        "A published pair is resolved when both images are in the table, in the part that the "
        "list is for, and the answer agrees with the patients there. *Here*: drawn from the part "
        "by [chestxray14.toml](../../train/configs/data/chestxray14.toml). *test_matched* has one "
        "pair of one patient a patient, and for each a pair of two whose second image agrees in "
        "sex and view and in age within two years."
    )
    if found["notes"]:
        each = [f"{reason}: {number:,}" for reason, number in found["notes"].items()]
        yield ""
        yield f"Left out: {listed(each)}."


def _controls(found: Mapping[str, Any]) -> Iterator[str]:
    controls = found["controls"]
    lists = list(next(iter(controls.values()))["lists"])
    yield ""
    yield "## What sex, age and view alone tell"
    yield ""
    yield (
        "No image is looked at: a logistic regression on whether the sexes differ, on the years "
        "between the ages, and on whether the views differ, fitted to the pairs of *train* and to "
        "no other. AUC in percent, with 95 % intervals over patients; 50 is guessing."
    )
    yield ""
    counts = [f"{name} ({controls['sex']['lists'][name]['pairs']:,} pairs)" for name in lists]
    yield from _table(
        ("Known", *counts),
        (
            [
                words,
                *(
                    f"{percent(one['auc'])} {interval_text(one['interval'])}".strip()
                    for one in control["lists"].values()
                ),
            ]
            for words, control in controls.items()
        ),
    )
    yield ""
    both = controls["sex and age"]["lists"]
    sentence = " and ".join(
        f"{percent(both[name]['auc'])} on *{name}*" for name in lists if name != "val"
    )
    yield (
        f"Sex and age alone reach {sentence}. A verification AUC on the published test pairs is "
        "to be read against that: it says little about images. The matched list is the one to "
        "judge by. *With nothing learned* is the score of rung 7: another sex outweighs any gap "
        "of age, another view half a year."
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int = 1) -> Iterator[str]:
    """Give a Markdown table whose first ``texts`` columns are words, the others figures."""
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * texts}{'--:|' * (len(heads) - texts)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
