"""The dashboard's words: times, amounts, states, steps and measures as people say them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from prichexy_plugin.chain import PERSON, Deed, Line
from prichexy_plugin.records import StudyRecord
from prichexy_plugin.security import Role
from prichexy_worker.contract import Reason, State

__all__ = [
    "MEANING",
    "MEANT",
    "MEASURES",
    "actor_for",
    "ago",
    "amount",
    "meaning_of",
    "person_for",
    "sentence_of",
    "told_measures",
    "took",
]

#: What each state means.
MEANING: Final[Mapping[State, str]] = {
    State.WATCHED: "Arrived, still receiving instances",
    State.PENDING: "Taken in, not yet handed to the broker",
    State.QUEUED: "Waiting for a worker",
    State.PROCESSING: "A worker has it",
    State.EXPORTED: "At the export target",
    State.QUARANTINED: "Could not be made safe; a human decides",
    State.FAILED: "Given up after several attempts",
    State.REJECTED: "Not taken in",
}
#: The measures of docs/architecture.md: what each is, and its unit.
MEASURES: Final[Mapping[str, tuple[str, str]]] = {
    "max_displacement_px": ("Greatest displacement", "px"),
    "mean_displacement_px": ("Mean displacement", "px"),
    "changed_share": ("Share of pixels that changed", ""),
    "psnr_db": ("Peak signal-to-noise ratio", "dB"),
    "max_recognised": ("Recognised as the patient's", ""),
    "max_finding_change": ("Greatest change of a finding", ""),
    "text_regions_erased": ("Texts erased, per image", ""),
    "text_markers_kept": ("Side and view markers kept, per image", ""),
    "text_erased_share": ("Share of the image that was erased", ""),
    "text_pictures": ("Regions in doubt with a picture", ""),
    "images_in_doubt": ("Images in doubt", ""),
    "targets_not_withdrawn": ("Targets that may still hold something of it", ""),
    "targets_unproved": ("Targets that cannot show what they hold", ""),
}
#: What the measures, and others that a report may have, tell of the result, in one line.
MEANT: Final[Mapping[str, str]] = {
    "max_displacement_px": "How far the part that moved most was moved: the more, the less like.",
    "mean_displacement_px": "How far the image was moved on average.",
    "changed_share": "1 is all pixels. High even where little moved: almost every value changes.",
    "psnr_db": "How like the original it stayed. The higher, the more of use and the less private; "
    "200 says that nothing changed.",
    "max_recognised": "How sure the model's verifier is, 0 to 1, that original and result show one "
    "patient. Few attackers have the original itself; but other networks may recognise more.",
    "max_finding_change": "The most that the model's classifier changed its mind by about any "
    "finding, 0 to 1.",
}


def ago(past: datetime, now: datetime) -> str:
    """Say how long ago, in one unit; "just now" below five seconds and for the future."""
    seconds = (now - past).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (5, "s")):
        if seconds >= size:
            return f"{seconds // (1 if unit == 's' else size):.0f} {unit} ago"
    return "just now"


def meaning_of(study: StudyRecord) -> str:
    """Say what the state of this study means; of an export also whether anything shows it."""
    if study.state is not State.EXPORTED:
        return MEANING[study.state]
    several = len(study.targets) > 1
    if study.proved:
        shown = "which have shown that they hold" if several else "which has shown that it holds"
        return f"At the export target{'s' if several else ''}, {shown} all of it"
    if several:
        return "Sent to the export targets; not every one of them shows that it holds all of it"
    return "Sent to the export target; nothing shows that it holds all of it"


def told_measures(measures: Mapping[str, float]) -> tuple[tuple[str, str, str], ...]:
    """Give each measure's name, what it is called, and its value with its unit."""
    told = []
    for name, value in measures.items():
        if name == "images_shown":
            continue  # no measure of the study: of how many of its images there are pictures
        title, unit = MEASURES.get(name, (name.replace("_", " "), ""))
        told.append((name, title, f"{value:.4g} {unit}".strip()))
    return tuple(told)


def took(seconds: float) -> str:
    """Write a duration in seconds with the precision that people use."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def amount(size: float) -> str:
    """Write a number of bytes, in powers of 1000 as disks are sold."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def sentence_of(line: Line) -> str:
    """Say what a line of the trail tells of, and why; of a step only why.

    Of what newer software wrote it gives the code.
    """
    why = []
    if line.reason is not None:
        why = [Reason(line.reason).sentence if line.reason in set(Reason) else line.reason]
    if line.deed == Deed.STEP:
        return " ".join(why)
    what = Deed(line.deed).sentence if line.deed in set(Deed) else line.deed
    return " ".join([what, *why])


def actor_for(role: Role, actor: str) -> str:
    """Name who did something to a user of this role: people are named to operators only."""
    if role < Role.OPERATOR and actor.startswith(PERSON):
        return "a user"
    return actor


def person_for(role: Role, name: str) -> str:
    """Name a user of Orthanc, without the trail's prefix, to a user of this role."""
    return actor_for(role, f"{PERSON}{name}").removeprefix(PERSON)
