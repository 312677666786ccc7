"""The quarantine desk: one study after the other, the oldest first, with all that decides over it.

What a look at the images can tell, a person may decide here: which boxes are erased, which are no
text. The study is then released, which means that a worker makes it anew and the release gate
judges it with these decisions. Anything else stays in quarantine, is tried again or turned away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final
from urllib.parse import urlencode

from prichexy_plugin.dashboard.actions import ACTIONS, UNDONE, Hands, carry_out
from prichexy_plugin.dashboard.forms import Forms
from prichexy_plugin.dashboard.frame import Visit, render
from prichexy_plugin.dashboard.held import held_lines
from prichexy_plugin.dashboard.http import (
    LARGE_FORM,
    SCRIPTED,
    BadQuery,
    Request,
    Response,
    go_to,
    plain,
)
from prichexy_plugin.dashboard.wording import ago, told_measures
from prichexy_plugin.decisions import RELEASES
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.orders import InDoubt, Orders
from prichexy_plugin.queries import Mark, StudySearch
from prichexy_plugin.records import StudyRecord
from prichexy_worker.contract import MOST_BOXES, Box, Looked, Reason, State

__all__ = ["desk_page", "take"]

#: So many boxes more than were found can be drawn in one image at a time.
_NEW_BOXES: Final = 8
_FIRST: Final = Mark(datetime(1970, 1, 1, tzinfo=UTC), "0")
#: What the page says of the study before, behind its name, by the note that stands in its address.
_NOTES: Final[Mapping[str, str]] = {
    "released": "is released: a worker makes it anew with what you decided; the gate judges it.",
    "rejected": "is turned away.",
    "retried": "goes its way once more.",
    "moved": "was left as it is: it had moved on since you saw it.",
}
_JOB: Final = re.compile("[0-9a-f]{32}")
_ERASE, _KEEP, _LEAVE = "erase", "keep", "leave"
_CHOICES: Final[Mapping[str, str]] = {
    _ERASE: "Erase it",
    _KEEP: "Leave it: no text, or it names nobody",
    _LEAVE: "No box here",
}
_SIDES: Final = ("x", "y", "w", "h")
_DIGITS: Final = 5


class _Odd(ValueError):
    """A form that cannot be what the page asked for; the text is told to the person."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One box of an image on the page; ``name`` begins the names of its fields.

    ``box`` is where it stands at first, None where none does yet. Only what was ``found`` may be
    left alone, and just where it was found.
    """

    name: str
    title: str
    box: Box | None
    chosen: str
    choices: tuple[str, ...]
    #: What was typed into its number fields, where the page is shown again.
    typed: tuple[str, ...] = ()

    @property
    def sides(self) -> tuple[tuple[str, str, str], ...]:
        """Give the number fields: the last part of the name, the label, the value."""
        if self.typed:
            values = list(self.typed)
        elif self.box is None:
            values = ["", "", "", ""]
        else:
            left, top, right, bottom = self.box
            values = [str(left), str(top), str(right - left), str(bottom - top)]
        labels = ("Left", "Top", "Width", "Height")
        return tuple(zip(_SIDES, labels, values, strict=True))


@dataclass(frozen=True, slots=True)
class _Image:
    image: InDoubt
    rows: tuple[_Row, ...]
    new_rows: tuple[_Row, ...]


def desk_page(
    ledger: Ledger,
    forms: Forms,
    visit: Visit,
    job_id: str | None = None,
    *,
    sent: Mapping[str, str] = MappingProxyType({}),
    odd: str = "",
) -> Response:
    """Show this study, or the next one that waits for a decision. Raises BadQuery.

    With ``odd``, what is wrong with a form, it stands there again as it was ``sent``. What was
    opened by its own address stands nowhere in the row: after it comes the oldest.
    """
    request = visit.request
    reason, after = _wanted(request)
    if _known_reason(sent.get("filter", "")):
        reason = Reason(sent["filter"])
    study = _next(ledger, reason, after) if job_id is None else ledger.study(job_id)
    if study is not None and study.state is not State.QUARANTINED:
        return go_to(f"{request.root}prichexy/studies/{study.job_id}", status=302)
    if study is None and job_id is not None:
        return plain(404, "There is no such study in the ledger.")
    held = held_lines(ledger, State.QUARANTINED, visit)
    wait = sum(line.count for line in held if reason in (None, line.reason))
    images = () if study is None else ledger.in_doubt(study.job_id)
    noted, before = request.query.get("note", ""), request.query.get("of", "")
    if before and not _JOB.fullmatch(before):
        raise BadQuery("of")
    words = {"reason": "" if reason is None else reason.value}
    page = render(
        "desk.html",
        visit,
        study=study,
        seen="" if study is None else ago(study.first_seen, visit.at),
        images=[]
        if study is None
        else [_filled(_image(one, study.orders), sent) for one in images],
        sent=sent,
        regions=() if study is None else range(1, 1 + study.text_pictures),
        measures=() if study is None else told_measures(study.measures),
        releases=RELEASES,
        turned_away=ACTIONS["reject"].reasons,
        choices=_CHOICES,
        token="" if study is None else forms.token(visit, _purpose(study.job_id)),
        place=_known_place(sent.get("place", "")) if sent or job_id else _place(study),
        skip=_query(words, after=_place(study)),
        begin=_query(words),
        held=held,
        all=sum(line.count for line in held),
        same=next((one for one in held if study is not None and one.reason is study.reason), None),
        words=words,
        wait=wait,
        begun=after is not None,
        note=_NOTES.get(noted) if before else None,
        before=before,
        undone=noted in UNDONE,
        odd=odd,
    )
    return replace(page, status=400 if odd else page.status, headers=SCRIPTED)


def take(job_id: str, deed: str, hands: Hands, forms: Forms, visit: Visit) -> Response:
    """Do what a form of the desk asks for, and go on to the next study. Raises Refused."""
    if deed not in ("release", "reject", "retry"):
        return plain(404, "There is no such page.")
    form = forms.read(visit, _purpose(job_id), LARGE_FORM)
    study = hands.ledger.study(job_id)
    if study is None:
        return plain(404, "There is no such study in the ledger.")
    try:
        done = (
            _release(study, hands.ledger, form, visit)
            if deed == "release"
            else carry_out(ACTIONS[deed], study, hands, form, visit)
        )
    except _Odd as error:
        odd = f"Nothing was changed. {error}"
        # What was said of other images says nothing of these.
        sent = form if form.get("seen") == study.as_seen else {}
        return desk_page(hands.ledger, forms, visit, job_id, sent=sent, odd=odd)
    if isinstance(done, Response):
        return done
    words = {
        "reason": _known_reason(form.get("filter", "")),
        "after": _known_place(form.get("place", "")),
    }
    return go_to(f"{visit.request.root}prichexy/desk{_query(words, note=done, of=job_id)}")


def _release(study: StudyRecord, ledger: Ledger, form: Mapping[str, str], visit: Visit) -> str:
    """Release a study with what the form says of each image. Raises _Odd."""
    reason = next((one for one in RELEASES if one.value == form.get("why")), None)
    if reason is None:
        raise _Odd("Say why it may be released.")
    images = ledger.in_doubt(study.job_id)
    if not images or form.get("seen") != study.as_seen:
        return "moved"
    looked = [_looked(_image(image, study.orders), form) for image in images]
    erased, kept = (any(getattr(one, kind) for one in looked) for kind in ("erase", "keep"))
    if reason is Reason.RELEASED_ERASED and (kept or not erased):
        raise _Odd("Something that was found is not erased: say why, or have it erased.")
    done = ledger.release(
        study.job_id,
        revision=study.revision,
        seen=study.as_seen,
        actor=visit.actor,
        reason=reason,
        looked=looked,
    )
    return "released" if done else "moved"


def _looked(image: _Image, form: Mapping[str, str]) -> Looked:
    number = image.image.number
    if form.get(f"{number}.seen") != "yes":
        raise _Odd(f"Say that you have looked at all of image {number}.")
    erase: list[Box] = []
    keep: list[Box] = []
    for row in (*image.rows, *image.new_rows):
        chosen = form.get(f"{row.name}.do", row.chosen)
        if chosen not in row.choices:
            raise _Odd(f"Image {number}, {row.title}: nothing was chosen.")
        if chosen == _KEEP and row.box is not None:
            # It must be what stood on the page: nobody leaves alone what he did not see there.
            if any(form.get(f"{row.name}.{side}") != value for side, _, value in row.sides):
                raise _Odd(
                    f"Image {number}, {row.title}: it was moved, and only what was found can be "
                    "left alone, where it was found. Erase it there, or set its numbers back."
                )
            keep.append(row.box)
        elif chosen == _ERASE:
            erase.append(_box(image.image, row, form))
    if max(len(erase), len(keep)) > MOST_BOXES:
        raise _Odd(f"Image {number} has more than {MOST_BOXES} boxes of a kind.")
    return Looked(image.image.digest, tuple(erase), tuple(keep))


def _box(image: InDoubt, row: _Row, form: Mapping[str, str]) -> Box:
    texts = [form.get(f"{row.name}.{side}", "") for side in _SIDES]
    if not all(text.isascii() and text.isdigit() and len(text) <= _DIGITS for text in texts):
        raise _Odd(f"Image {image.number}, {row.title}: a number is missing.")
    left, top, width, height = map(int, texts)
    box = (left, top, left + width, top + height)
    if not (width and height) or box[2] > image.columns or box[3] > image.rows:
        raise _Odd(f"Image {image.number}, {row.title}: it does not lie within the image.")
    return box


def _image(image: InDoubt, orders: Orders) -> _Image:
    """Give the boxes of an image: those found now, those decided before, and room for others."""
    before = orders.over(image.digest)
    rows = tuple(_rows(image, before))
    names = range(len(rows) + 1, len(rows) + 1 + _NEW_BOXES)
    new = tuple(
        _Row(f"{image.number}.{name}", f"box {name}", None, _LEAVE, (_LEAVE, _ERASE))
        for name in names
    )
    return _Image(image, rows, new)


def _filled(image: _Image, sent: Mapping[str, str]) -> _Image:
    """Fill in what was sent."""
    if not sent:
        return image

    def filled(row: _Row) -> _Row:
        chosen = sent.get(f"{row.name}.do", row.chosen)
        typed = tuple(sent.get(f"{row.name}.{side}", "")[:_DIGITS] for side in _SIDES)
        try:
            box: Box | None = _box(image.image, row, sent)
        except _Odd:
            box = row.box
        return replace(
            row, box=box, chosen=chosen if chosen in row.choices else row.chosen, typed=typed
        )

    return replace(
        image, rows=tuple(map(filled, image.rows)), new_rows=tuple(map(filled, image.new_rows))
    )


def _rows(image: InDoubt, before: Looked | None) -> Iterator[_Row]:
    found = [(box, _ERASE, (_ERASE, _KEEP)) for box in image.boxes]
    if before is not None:
        found += [(box, _ERASE, (_ERASE, _LEAVE)) for box in before.erase]
        found += [(box, _KEEP, (_ERASE, _KEEP)) for box in before.keep]
    for number, (box, chosen, choices) in enumerate(found, start=1):
        yield _Row(f"{image.number}.{number}", f"box {number}", box, chosen, choices)


def _next(ledger: Ledger, reason: Reason | None, after: Mark | None) -> StudyRecord | None:
    search = StudySearch(state=State.QUARANTINED, reason=reason)
    found = ledger.search(search, limit=1, newer_than=after or _FIRST).studies
    return found[0] if found else None


def _wanted(request: Request) -> tuple[Reason | None, Mark | None]:
    text, place = request.query.get("reason", ""), request.query.get("after", "")
    if text and text not in set(Reason):
        raise BadQuery("reason")
    try:
        return Reason(text) if text else None, Mark.read(place) if place else None
    except ValueError:
        raise BadQuery("after") from None


def _known_reason(text: str) -> str:
    return text if text in set(Reason) else ""


def _known_place(place: str) -> str:
    try:
        return str(Mark.read(place))
    except ValueError:
        return ""


def _place(study: StudyRecord | None) -> str:
    return "" if study is None else str(Mark(study.updated, study.study_id))


def _query(words: Mapping[str, str], **more: str) -> str:
    query = {key: value for key, value in {**words, **more}.items() if value}
    return f"?{urlencode(query)}" if query else "?"


def _purpose(job_id: str) -> str:
    return f"desk {job_id}"
