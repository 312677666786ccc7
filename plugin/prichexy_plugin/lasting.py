"""Which decisions of people over a study outlive all that comes in for it or goes."""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, and_, false, func, not_, or_

from prichexy_plugin.orders import Orders
from prichexy_plugin.schema import StudyRow
from prichexy_worker.contract import Errand, Reason, State

__all__ = [
    "WITHOUT_CONSENT",
    "being_withdrawn",
    "is_being_withdrawn",
    "is_without_consent",
    "may_be_forgotten",
]

#: Why a study has ended that is not consented to. That is said of the patient, not of the images.
WITHOUT_CONSENT: Final = frozenset({Reason.NO_CONSENT.value, Reason.WITHDRAWN_CONSENT.value})


def is_being_withdrawn(row: StudyRow) -> bool:
    """Say whether somebody has had the export taken back and that has not ended as done.

    It may wait, be under way or have failed. Only its end, or a person, changes that.
    """
    return Orders.from_json(row.orders).withdraw(State(row.state))


def being_withdrawn() -> ColumnElement[bool]:
    """Give the condition for rows of which ``is_being_withdrawn`` says so."""
    withdraws = StudyRow.orders["errand"].as_string() == Errand.WITHDRAW.value
    return and_(func.coalesce(withdraws, false()), StudyRow.state != State.REJECTED.value)


def is_without_consent(row: StudyRow) -> bool:
    """Say whether somebody has said of the study that its use is not consented to.

    Nothing of it is taken in then, whatever comes, until somebody tries it again.
    """
    return row.unconsented or (row.state == State.REJECTED.value and row.reason in WITHOUT_CONSENT)


def may_be_forgotten() -> ColumnElement[bool]:
    """Give the condition for rows without which nothing is lost that people have to know or said.

    None that is not consented to: its study would be taken in when it comes again. None whose
    withdrawal has not ended as done, and none that did not end exported and may have left
    something at a target: nobody else would tell.
    """
    others = or_(StudyRow.reason.is_(None), StudyRow.reason.not_in(WITHOUT_CONSENT))
    exported = StudyRow.state == State.EXPORTED.value
    somewhere = or_(StudyRow.exported.is_(True), func.json_array_length(StudyRow.left_at) > 0)
    return and_(
        StudyRow.unconsented.is_(False),
        others,
        not_(being_withdrawn()),
        or_(exported, not_(somewhere)),
    )
