"""Sees to it that what goes to one place goes there under one key of the pseudonyms.

Under another key a patient becomes another one: a study would stand twice at its targets, and
nobody would see that two of them are one. A worker with another key, by a mistake in its settings,
gets no study; one whose settings name the former key as retired takes back what stands under it.

The ledger keeps the last key of each place, so that it is known after a restart, and when all its
studies are forgotten. A place that nothing went to yet takes the keys of the others: else who comes
there first, by mistake, would have the right workers refused.

Of each study it is kept under which keys an export of it may stand (``StudyRow.exported_key``): a
worker that has none of these removes nothing, whatever it reports.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from prichexy_plugin.lasting import is_being_withdrawn
from prichexy_plugin.moments import has_passed
from prichexy_plugin.schema import KeyOfPlaceRow, StudyRow
from prichexy_worker.contract import StudyReport

__all__ = ["KeyWatch", "Refusal", "out_of_reach", "place_of"]

#: A refusal is told of for so long after it was the last.
_TOLD_FOR: Final = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A worker whose key ``key_id`` is not ``known``, under which was exported to ``targets``.

    That was the study that it asked for, or the last one before.
    """

    worker_id: str
    key_id: str
    known: str
    targets: tuple[str, ...]
    at: datetime


class KeyWatch:
    """Knows by which key studies of each set of targets were exported last; any thread.

    ``accepted`` are the ids of keys that are right whatever was before.
    """

    def __init__(self, accepted: Collection[str] = ()) -> None:
        self._accepted = frozenset(accepted)
        self._refused: dict[str, Refusal] = {}

    def fits(self, session: Session, row: StudyRow, report: StudyReport, now: datetime) -> bool:
        """Say whether the worker that asks for a study may have it. Raises SQLAlchemyError.

        It needs the key under which was exported to the same targets last (where nothing was yet,
        to any others), and those under which the study itself stands there.
        """
        known = session.get(KeyOfPlaceRow, place_of(row.targets))
        lacking = out_of_reach(row, report)
        if known is not None:
            lacking = (*_lacking({known.key_id}, report), *lacking)
        else:
            anywhere = set(session.scalars(select(KeyOfPlaceRow.key_id).distinct()))
            elsewhere = _lacking(anywhere, report)
            if len(elsewhere) == len(anywhere):
                lacking = (*elsewhere, *lacking)
        if not lacking or not report.key_id or report.key_id in self._accepted:
            self._refused.pop(report.worker_id, None)
            return True
        targets = tuple(sorted(row.targets))
        self._refused[report.worker_id] = Refusal(
            report.worker_id, report.key_id, lacking[0], targets, now
        )
        return False

    def note(self, session: Session, row: StudyRow, report: StudyReport) -> None:
        """Write down the key under which a study was exported, and those under which it stands.

        Raises SQLAlchemyError.
        """
        if report.key_id:
            session.merge(KeyOfPlaceRow(place=place_of(row.targets), key_id=report.key_id))
        # A target that the study does not go to, and that did not answer, may hold what was before.
        still = row.exported_key.split() if row.exported and report.left_at else ()
        keys = {report.key_id, *out_of_reach(row, report), *still}
        row.exported_key = " ".join(sorted(keys - {""}))

    def refusals(self, now: datetime) -> tuple[Refusal, ...]:
        """Tell which workers were refused lately, by their ids."""
        lately = [one for one in self._refused.values() if not has_passed(_TOLD_FOR, one.at, now)]
        return tuple(sorted(lately, key=lambda one: one.worker_id))


def out_of_reach(row: StudyRow, report: StudyReport) -> tuple[str, ...]:
    """Give the keys under which the study may stand at its targets and which a worker has not.

    That worker finds nothing there of what was exported under them, unless it is told the name.
    """
    keys = set(row.exported_key.split() if row.exported else ())
    named = row.study_uids.values() if is_being_withdrawn(row) else ()
    return _lacking(keys - set(named), report)


def _lacking(keys: Collection[str], report: StudyReport) -> tuple[str, ...]:
    has = {"", report.key_id, *report.retired_keys}
    return tuple(sorted(set(keys) - has)) if report.key_id else ()


def place_of(targets: Sequence[str]) -> str:
    """Give the name of a set of targets (``KeyOfPlaceRow.place``)."""
    return ",".join(sorted(targets))
