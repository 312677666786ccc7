"""Which decisions of people over a study outlive all that comes in for it or goes."""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, and_, or_

from prichexy_plugin.orders import Orders
from prichexy_plugin.schema import StudyRow
from prichexy_worker.contract import Errand, Reason, State

__all__ = ["WITHOUT_CONSENT", "is_being_withdrawn", "is_without_consent", "may_be_forgotten"]

#: Why a study has ended that is not consented to. That is said of the patient, not of the images.
WITHOUT_CONSENT: Final = frozenset({Reason.NO_CONSENT.value, Reason.WITHDRAWN_CONSENT.value})


def is_being_withdrawn(row: StudyRow) -> bool:
    """Say whether somebody has had the export taken back and that has not ended as done.

    It may wait, be under way or have failed. Only its end, or a person, changes that.
    """
    withdraws = Orders.from_json(row.orders).errand is Errand.WITHDRAW
    return withdraws and row.state != State.REJECTED.value


def is_without_consent(row: StudyRow) -> bool:
    """Say whether somebody has said of the study that its use is not consented to.

    Nothing of it is taken in then, whatever comes, until somebody tries it again.
    """
    return row.unconsented or (row.state == State.REJECTED.value and row.reason in WITHOUT_CONSENT)


def may_be_forgotten() -> ColumnElement[bool]:
    """Give the condition for rows without which the gateway would do the same to their studies."""
    others = or_(StudyRow.reason.is_(None), StudyRow.reason.not_in(WITHOUT_CONSENT))
    return and_(StudyRow.unconsented.is_(False), others)
