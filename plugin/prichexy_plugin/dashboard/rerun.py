"""The page on which an administrator has a study made anew with another model or strength."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from prichexy_plugin.dashboard.forms import Forms
from prichexy_plugin.dashboard.frame import Visit, render
from prichexy_plugin.dashboard.http import Response, go_to, plain
from prichexy_plugin.dashboard.needs import is_silent
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.records import StudyRecord
from prichexy_plugin.security import Role
from prichexy_worker.contract import (
    LEAST_STRENGTH,
    MOST_STRENGTH,
    Available,
    Errand,
    State,
)

__all__ = ["can_rerun", "rerun_page", "take_rerun"]

_STATES: Final = frozenset({State.EXPORTED, State.QUARANTINED, State.FAILED})
_STRENGTH: Final = re.compile(r"[0-9](\.[0-9]{1,2})?")


@dataclass(frozen=True, slots=True)
class _Offer:
    """A model that can be chosen, and how many of the ``living`` workers have it."""

    model: Available
    workers: int
    living: int


def can_rerun(study: StudyRecord, visit: Visit) -> bool:
    """Say whether this user may have this study made anew with a choice."""
    withdrawing = study.orders.errand is not Errand.ANONYMIZE
    return (
        visit.may(Role.ADMINISTRATOR)
        and study.state in _STATES
        and study.has_originals
        and not withdrawing
        and not study.unconsented
    )


def _offers(ledger: Ledger, now: datetime) -> tuple[_Offer, ...]:
    """Give the models that living workers have said they can use, by name and version."""
    living = [worker for worker in ledger.workers() if not is_silent(worker, now)]
    stores = [{one.bundle: one for one in worker.announcement.models} for worker in living]
    found = {bundle: one for store in stores for bundle, one in store.items()}
    return tuple(
        _Offer(one, sum(one.bundle in store for store in stores), len(living))
        for one in sorted(
            found.values(), key=lambda one: (one.model.name, one.model.model_version, one.bundle)
        )
    )


def rerun_page(study: StudyRecord, ledger: Ledger, forms: Forms, visit: Visit) -> Response:
    """Say what would happen, and ask with what."""
    if not can_rerun(study, visit):
        return go_to(f"../{study.job_id}?note=moved")
    return render(
        "rerun.html",
        visit,
        study=study,
        offers=_offers(ledger, visit.at),
        least=LEAST_STRENGTH,
        most=MOST_STRENGTH,
        token=forms.token(visit, _purpose(study)),
    )


def take_rerun(study: StudyRecord, ledger: Ledger, forms: Forms, visit: Visit) -> Response:
    """Do what the form asks for, and go back to the study. Raises Refused."""
    form = forms.read(visit, _purpose(study))
    bundle, strength = form.get("bundle", ""), form.get("strength", "1").strip()
    if bundle and bundle not in {one.model.bundle for one in _offers(ledger, visit.at)}:
        sentence = "No living worker has this model any more."
        return plain(400, f"Nothing was changed. {sentence} Go back and choose another one.")
    if not _STRENGTH.fullmatch(strength) or not (
        LEAST_STRENGTH <= float(strength) <= MOST_STRENGTH
    ):
        sentence = f"The strength is a number from {LEAST_STRENGTH:g} to {MOST_STRENGTH:g}."
        return plain(400, f"Nothing was changed. {sentence} Go back and correct it.")
    done = (
        can_rerun(study, visit)
        and form.get("seen") == study.as_seen
        and ledger.order_rerun(
            study.job_id,
            revision=study.revision,
            seen=study.as_seen,
            actor=visit.actor,
            bundle=bundle,
            strength=float(strength),
        )
    )
    return go_to(f"../{study.job_id}?note={'rerun' if done else 'moved'}")


def _purpose(study: StudyRecord) -> str:
    return f"rerun {study.job_id}"
