"""From a study's page in Orthanc to its page here, by Orthanc's own id of it."""

from __future__ import annotations

import re
from typing import Final

from prichexy_plugin.dashboard.actions import ACTIONS, actions_for
from prichexy_plugin.dashboard.frame import Visit
from prichexy_plugin.dashboard.http import Response, go_to, json_response, plain
from prichexy_plugin.dashboard.rerun import can_rerun
from prichexy_plugin.dashboard.wording import meaning_of
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.records import StudyRecord
from prichexy_plugin.security import Role
from prichexy_worker.contract import State

__all__ = ["FROM_ORTHANC", "go_to_study", "tell_of_study"]

_ID: Final = "[0-9a-f]{8}(?:-[0-9a-f]{8}){4}"
#: A study's page, or that of one of its buttons.
FROM_ORTHANC: Final = re.compile(rf"/orthanc/({_ID})(?:/([a-z]{{1,20}}))?")


def go_to_study(ledger: Ledger, study_id: str, action: str | None) -> Response:
    """Send the browser to the study's page, or to that which asks before ``action``."""
    study = _known(ledger, study_id)
    if study is None or action not in (None, "desk", "rerun", *ACTIONS):
        return plain(404, "The gateway does not know this study: nothing of it has arrived yet.")
    if action is None:
        return go_to(f"../studies/{study.job_id}", status=302)
    if action == "desk":
        return go_to(f"../../desk/{study.job_id}", status=302)
    return go_to(f"../../studies/{study.job_id}/{action}", status=302)


def tell_of_study(ledger: Ledger, study_id: str, visit: Visit) -> Response:
    """Tell a page of Orthanc's where the study is, why, and what this user may do with it."""
    study = _known(ledger, study_id)
    if study is None:
        return json_response(404, {"error": "no such study"})
    actions = [{"name": one.name, "title": one.title} for one in actions_for(study, visit)]
    if can_rerun(study, visit):
        actions.append({"name": "rerun", "title": "Make anew"})
    return json_response(
        200,
        {
            "job_id": study.job_id,
            "state": study.state.value,
            "sentence": study.reason_sentence or f"{meaning_of(study)}.",
            "actions": actions,
            "on_desk": study.state is State.QUARANTINED and visit.may(Role.OPERATOR),
        },
    )


def _known(ledger: Ledger, study_id: str) -> StudyRecord | None:
    found = ledger.studies(study_id=study_id, limit=1).studies
    return found[0] if found else None
