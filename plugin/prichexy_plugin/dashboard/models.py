"""The models: which one is in use, which may be, what is known of each; and putting one to use.

    GET  /models                       all versions of the model store, and what workers use
    GET  /models/{digest}/card         the bundle's card, as text
    GET  /models/{digest}/report       the report that the bundle brings, in a frame
    GET  /models/{digest}/report.html  that report itself
    GET  /models/{digest}/promote      asks; POST asks once more, and then does it
    GET  /models/rollback              the same for the version before

Everything is done in the store, as the command line does it, and refused as there. Nothing can be
forced here, and no bundle comes in: ``prichexy model add`` checks one and offers it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from prichexy_plugin.chain import PLUGIN
from prichexy_plugin.dashboard.forms import Forms
from prichexy_plugin.dashboard.frame import Visit, render
from prichexy_plugin.dashboard.http import FRAMING, REPORT, Response, go_to, plain
from prichexy_plugin.dashboard.model_figures import Figure, Words, figures_of, words_of
from prichexy_plugin.dashboard.models_in_use import ModelInUse, models_in_use
from prichexy_plugin.dashboard.view import Overview
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.model_changes import MOST_CHANGES, read_changes
from prichexy_plugin.people import kept_name
from prichexy_plugin.security import Role
from prichexy_store.errors import Failed, Moved, Refused
from prichexy_store.history import Change, Version
from prichexy_store.store import Entry, ModelStore
from prichexy_worker.contract import ContractError

__all__ = ["ADDRESS", "Models"]

ADDRESS: Final = re.compile(
    r"/models(?:/(?P<rollback>rollback)"
    r"|/(?P<digest>[0-9a-f]{64})/(?P<part>promote|card|report|report\.html))?"
)
#: So many of the last changes are shown.
_CHANGES: Final = 20
#: A report is far smaller; what is larger is no report of ours.
_REPORT_BYTES: Final = 32_000_000
_CARD_BYTES: Final = 200_000
_PROMOTE: Final = {
    "privacy": "It protects patients better.",
    "utility": "Its images are of more use.",
    "first": "It is the first that was measured.",
    "trial": "It is tried out.",
}
_ROLLBACK: Final = {
    "images": "The images of the one in use are not as they should be.",
    "privacy": "The one in use protects less than was thought.",
    "trouble": "Workers have trouble with the one in use.",
    "trial": "The trial is over.",
}
_NOTES: Final = {
    "promoted": "Done. Workers take it up before their next study; below stands what they use.",
    "rolled": "Done. Workers take the former version up before their next study.",
    "moved": "Nothing was changed: another version was put to use since you saw it.",
    "refused": "Nothing was changed: the store refused it. Open its page again to see why.",
    "later": "Done, but the audit trail could not be told. `prichexy serve` tells it at its start.",
}
_UNDONE: Final = frozenset({"moved", "refused", "later"})


@dataclass(frozen=True, slots=True)
class _Line:
    """One version as the page shows it."""

    entry: Entry
    words: Words
    figures: tuple[Figure, ...]
    has_report: bool
    has_card: bool
    workers: int


@dataclass(frozen=True, slots=True)
class _Shelf:
    """What the store holds; ``trouble`` says what is wrong with it, and then there is nothing."""

    entries: tuple[Entry, ...] = ()
    changes: tuple[Change, ...] = ()
    in_use: str | None = None
    writable: bool = False
    trouble: str = ""


class Models:
    """Answers for the store, None where the settings name none."""

    def __init__(self, store: ModelStore | None, forms: Forms) -> None:
        self._store = store
        self._forms = forms

    def answer(
        self, match: re.Match[str], overview: Overview, ledger: Ledger | None, visit: Visit
    ) -> Response:
        """Answer one address. Raises forms.Refused."""
        store = self._store
        digest, part = match["digest"], match["part"]
        changing = bool(match["rollback"]) or part == "promote"
        if visit.request.method == "POST" and not changing:
            return Response(405, "text/plain", "", headers={"Allow": "GET"})
        if not digest and not changing:
            return self._page(overview, visit)
        if store is None or (digest and not (store.folder(digest)).is_dir()):
            return plain(404, "There is no such version in the model store.")
        if not changing:
            return _part(store, digest, part, visit)
        if not visit.may(Role.ADMINISTRATOR):
            return plain(403, "This is for users with the role administrator.")
        try:
            if visit.request.method == "POST":
                return self._take(store, digest, ledger, visit)
            return self._confirm(store, digest, visit)
        except Failed as error:
            return plain(503, str(error))

    def _page(self, overview: Overview, visit: Visit) -> Response:
        shelf = _look(self._store)
        models = models_in_use(overview)
        noted = visit.request.query.get("note", "")
        lines = (
            []
            if self._store is None
            else [_line(self._store, entry, models) for entry in shelf.entries]
        )
        may = visit.may(Role.ADMINISTRATOR) and shelf.writable
        return render(
            "models.html",
            visit,
            shelf=shelf,
            known=self._store is not None,
            models=models,
            weights={line.entry.version.weights: line for line in lines},
            lines=sorted(lines, key=lambda line: not line.entry.in_use),
            may=may,
            may_roll_back=may and any(line.entry.former for line in lines),
            names_people=visit.role >= Role.OPERATOR,
            note=_NOTES.get(noted),
            undone=noted in _UNDONE,
        )

    def _confirm(self, store: ModelStore, digest: str | None, visit: Visit) -> Response:
        """Show what would change, and ask; or why it is refused. Raises Failed."""
        entries = store.entries()
        after = next((one for one in entries if _meant(one, digest)), None)
        before = next((one for one in entries if one.in_use), None)
        if after is None:
            return plain(404, "There is no such version to put to use.")
        if digest:
            refusal = "It is in use already." if after.in_use else store.refusal(digest)
        else:
            refusal = None if after.whole else "The former version is damaged."
        return render(
            "model_confirm.html",
            visit,
            title="Promote" if digest else "Roll back",
            before=None if before is None else _line(store, before, ()),
            after=_line(store, after, ()),
            changes=_differences(None if before is None else before.version, after.version),
            refusal=refusal,
            reasons=_PROMOTE if digest else _ROLLBACK,
            rolls_back=not digest,
            token=self._forms.token(visit, _purpose(digest)),
            seen="" if before is None else before.version.digest,
            target=after.version.digest,
        )

    def _ask_again(
        self, store: ModelStore, digest: str | None, form: Mapping[str, str], visit: Visit
    ) -> Response:
        """Show what was chosen, and ask for the second time. Raises Failed."""
        entries = store.entries(thorough=False)
        after = next((one for one in entries if _meant(one, digest)), None)
        before = next((one for one in entries if one.in_use), None)
        if after is None:
            return plain(404, "There is no such version to put to use.")
        reasons = _PROMOTE if digest else _ROLLBACK
        return render(
            "model_sure.html",
            visit,
            title="Promote" if digest else "Roll back",
            rolls_back=not digest,
            name=_named(after.version),
            before=None if before is None else _named(before.version),
            reason=reasons[form["reason"]],
            fields={key: form.get(key, "") for key in ("seen", "target", "reason")},
            token=self._forms.token(visit, _purpose(digest, sure=True)),
        )

    def _take(
        self, store: ModelStore, digest: str | None, ledger: Ledger | None, visit: Visit
    ) -> Response:
        """Ask once more, then do what the form asks for. Raises forms.Refused, Failed.

        Only the page that asks once more has the token of what is done.
        """
        sure = visit.request.form().get("sure") == "yes"
        form = self._forms.read(visit, _purpose(digest, sure=sure))
        back = "../" if not digest else "../../"
        reasons = _PROMOTE if digest else _ROLLBACK
        reason = reasons.get(form.get("reason", ""))
        if ledger is None:
            return plain(503, "The ledger is not open: nobody would know who did it.")
        if reason is None:
            return plain(400, "No reason was chosen. Nothing was changed. Go back and choose one.")
        if not sure:
            return self._ask_again(store, digest, form, visit)
        try:
            by = f"{kept_name(visit.user or '')} on the dashboard"
            change = _change(store, digest, form, by, reason)
        except Moved:
            return go_to(f"{back}models?note=moved")
        except Refused:
            return go_to(f"{back}models?note=refused")
        note = "promoted" if digest else "rolled"
        told = _told(store, ledger, change, visit.actor)
        return go_to(f"{back}models?note={note if told else 'later'}")


def _change(
    store: ModelStore, digest: str | None, form: Mapping[str, str], by: str, reason: str
) -> Change:
    """Change the store as it was asked for. Raises Moved, Refused, Failed."""
    seen = form.get("seen", "")
    if digest:
        return store.use(digest, by, seen=seen or None, reason=reason)
    former = next((one for one in store.entries(thorough=False) if one.former), None)
    if former is None or former.version.digest != form.get("target"):
        raise Moved("Another version was put to use meanwhile. Nothing was changed.")
    return store.rollback(by, reason, seen=seen)


def _meant(entry: Entry, digest: str | None) -> bool:
    return entry.version.digest == digest if digest else entry.former


def _named(version: Version) -> str:
    return f"{version.name} {version.version}"


def _purpose(digest: str | None, *, sure: bool = False) -> str:
    return f"model {digest or 'rollback'}{' sure' if sure else ''}"


def _told(store: ModelStore, ledger: Ledger, made: Change, actor: str) -> bool:
    """Have the audit trail say what the store's history says; False when that was not possible.

    Of the change that was ``made`` just now ``actor`` tells, of all others, whoever made them, the
    plugin.
    """
    try:
        history = list(enumerate(store.history(), start=1))[-MOST_CHANGES:]
        for place, change in history:
            told = read_changes({"changes": [change.for_the_trail(place)]})
            ledger.note_model_changes(told, actor if change == made else PLUGIN)
    except (SQLAlchemyError, ContractError, Failed):
        return False
    return True


def _look(store: ModelStore | None) -> _Shelf:
    if store is None:
        return _Shelf()
    if not store.root.is_dir():
        return _Shelf(trouble=f"{store.root} is not there, or this Orthanc may not read it.")
    try:
        return _Shelf(
            entries=tuple(store.entries(thorough=False)),
            changes=tuple(reversed(store.history()[-_CHANGES:])),
            in_use=store.in_use(),
            writable=os.access(store.root, os.W_OK),
        )
    except Failed as error:
        return _Shelf(trouble=str(error))


def _line(store: ModelStore, entry: Entry, models: tuple[ModelInUse, ...]) -> _Line:
    folder = store.folder(entry.version.digest)
    return _Line(
        entry,
        words_of(folder),
        figures_of(folder),
        has_report=(folder / "docs" / "report.html").is_file(),
        has_card=(folder / "docs" / "README.md").is_file(),
        workers=sum(one.workers for one in models if one.info.digest == entry.version.weights),
    )


def _differences(before: Version | None, after: Version) -> tuple[tuple[str, str, str], ...]:
    """Give what changes: a title, what it is now, and what it would be."""
    named: tuple[tuple[str, Callable[[Version], str]], ...] = (
        ("Model", _named),
        ("Evidence", lambda version: version.known),
        ("What is known", lambda version: version.statement),
        ("How images are deformed", lambda version: version.deformation),
        ("SHA-256 of the weights", lambda version: f"{version.weights[:16]}…"),
    )
    return tuple(
        (title, "none" if before is None else read(before), read(after)) for title, read in named
    )


def _part(store: ModelStore, digest: str, part: str, visit: Visit) -> Response:
    """Show the card or the report of a version."""
    folder = store.folder(digest) / "docs"
    file = folder / ("README.md" if part == "card" else "report.html")
    most = _CARD_BYTES if part == "card" else _REPORT_BYTES
    try:
        content = file.read_bytes() if file.stat().st_size <= most else None
    except OSError:
        content = None
    if content is None:
        return plain(404, "The bundle of this version brings none.")
    if part == "report.html":
        return Response(200, "text/html; charset=utf-8", content, headers=REPORT)
    text = content.decode("utf-8", errors="replace") if part == "card" else None
    page = render("model_part.html", visit, digest=digest, text=text)
    return page if part == "card" else replace(page, headers=FRAMING)
