"""The REST API for workers and for the command line, under ``contract.API_ROOT``, in JSON.

    GET  /health            how every part is, the counts by state, the workers
    GET  /ready             200 when studies can be taken in, else 503; "problems" say why
    GET  /studies           ?state= &study_id= (Orthanc's id or a job id) &limit= &offset=
    GET  /studies/{job_id}  one study with its audit trail under "events"
    GET  /orthanc/{id}      of the study with Orthanc's id: job, state, why, what this user may do
    POST /reports           a StudyReport; the answer is a Claim
    POST /workers           a WorkerAnnouncement; the answer is {}
    POST /pictures          TextPictures; the answer is a Claim
    POST /doubts            an ImageInDoubt; the answer is a Claim
    POST /images            ImagePictures; the answer is a Claim
    POST /patients          PatientsAsked; the answer is PatientsTold
    POST /backfill          {"per_minute": number} begins one, {"per_minute": 0} stops it; the
                            answer is the backfill as in /health, where operators alone
                            read who began and stopped it

    POST /models            {"changes": [...]} of a model store's history (model_changes); the
                            answer is {"told": number}, so many lines were new
    POST /deeds             {"deeds": [...]} of what else the command line did (outside_deeds); the
                            same answer

POSTs carry ``contract.REQUEST_HEADER``. What workers tell and ask comes from WorkerUser, a
backfill from an operator, changes of the model and deeds from an administrator. An error is
{"error": sentence} with its status.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from prichexy_plugin.dashboard import in_json
from prichexy_plugin.dashboard.frame import Visit
from prichexy_plugin.dashboard.from_command_line import (
    answer_backfill,
    answer_deeds,
    answer_model_changes,
)
from prichexy_plugin.dashboard.from_orthanc import FROM_ORTHANC, tell_of_study
from prichexy_plugin.dashboard.from_workers import (
    answer_post,
    take_announcement,
    take_doubt,
    take_pictures,
    take_report,
)
from prichexy_plugin.dashboard.http import Request, Response, json_response, not_allowed
from prichexy_plugin.dashboard.images import take_images
from prichexy_plugin.dashboard.patients import take_question
from prichexy_plugin.dashboard.view import Gateway, Overview
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.pictures import Pictures
from prichexy_plugin.security import Role, user_of
from prichexy_plugin.studies import Studies
from prichexy_worker.contract import (
    API_ROOT,
    CONTRACT_VERSION,
    REQUEST_HEADER,
    SOFTWARE_VERSION,
    version_of,
)

__all__ = ["ADDRESS", "Api"]

#: Where it begins, behind /prichexy.
ADDRESS: Final = API_ROOT.removeprefix("/prichexy")
_JOB: Final = re.compile("/studies/([0-9a-f]{32})")
_PAGE_LIMIT: Final = 500


class Api:
    """Answers what is asked under ``ADDRESS``; ``visit_of`` says who asks, and with which role."""

    def __init__(
        self,
        gateway: Gateway | None,
        *,
        visit_of: Callable[[Request], Visit],
        overview: Callable[[], Overview],
        worker_user: str | None,
        monitor_user: str | None,
        pictures: Pictures | None,
        studies: Studies | None,
    ) -> None:
        self._gateway = gateway
        self._visit_of = visit_of
        self._overview = overview
        self._worker_user = worker_user
        self._monitor_user = monitor_user
        self._pictures = pictures
        self._studies = studies

    def answer(self, request: Request) -> Response:
        """Answer a request whose path begins with ``ADDRESS``. Raises BadQuery."""
        path = request.path.removeprefix(ADDRESS)
        if path in ("/health", "/ready"):
            return self._how_it_is(path, request)
        gateway = self._gateway
        ledger = None if gateway is None else gateway.ledger
        if gateway is None or ledger is None:
            return json_response(503, {"error": "the ledger is not open", "see": "/health"})
        if path in ("/backfill", "/models", "/deeds"):
            return self._from_command_line(gateway, ledger, path, request)
        takes = self._takes(ledger, version_of(request.headers.get(REQUEST_HEADER.lower())))
        if path in takes:
            if request.method != "POST":
                return not_allowed("POST")
            return answer_post(request, self._worker_user, takes[path])
        return self._about_studies(ledger, path, request)

    def _how_it_is(self, path: str, request: Request) -> Response:
        if request.method != "GET":
            return not_allowed("GET")
        overview = self._overview()
        if path == "/ready":
            return _ready(overview)
        user = user_of(request.headers)
        watches = user is not None and user == self._monitor_user
        names_people = self._visit_of(request).role >= Role.OPERATOR
        return _health(overview, names_studies=not watches, names_people=names_people)

    def _from_command_line(
        self, gateway: Gateway, ledger: Ledger, path: str, request: Request
    ) -> Response:
        if request.method != "POST":
            return not_allowed("POST")
        visit = self._visit_of(request)
        role = Role.OPERATOR if path == "/backfill" else Role.ADMINISTRATOR
        if visit.user is None or not visit.may(role):
            who = role.name.lower()
            return json_response(403, {"error": f"this is for users with the role {who}"})
        if path == "/backfill":
            return answer_backfill(gateway, ledger, request, visit.user)
        answer = answer_deeds if path == "/deeds" else answer_model_changes
        return answer(ledger, request, visit.actor)

    def _takes(self, ledger: Ledger, version: int) -> dict[str, Callable[[Any], object]]:
        """Give what takes in what workers of a contract's ``version`` post, by path."""
        takes = {
            "/reports": take_report(ledger, version),
            "/workers": take_announcement(ledger, version),
        }
        if self._pictures is not None:
            takes["/pictures"] = take_pictures(ledger, self._pictures, version)
            takes["/doubts"] = take_doubt(ledger, self._pictures, version)
            takes["/images"] = take_images(ledger, self._pictures, version)
        if self._studies is not None:
            takes["/patients"] = take_question(ledger, self._studies)
        return takes

    def _about_studies(self, ledger: Ledger, path: str, request: Request) -> Response:
        job = _JOB.fullmatch(path)
        orthancs = FROM_ORTHANC.fullmatch(path)
        if path != "/studies" and job is None and (orthancs is None or orthancs[2]):
            return json_response(404, {"error": "no such address"})
        if request.method != "GET":
            return not_allowed("GET")
        visit = self._visit_of(request)
        if visit.role < Role.VIEWER:
            return json_response(403, {"error": "this user has no role here"})
        if orthancs is not None:
            return tell_of_study(ledger, orthancs[1], visit)
        if job is not None:
            return _study(ledger, job[1], visit.role)
        return _studies(ledger, request)


def _health(overview: Overview, *, names_studies: bool, names_people: bool) -> Response:
    """Say how everything is; always 200, so that a probe of Orthanc itself does not fail.

    "problems" keep all studies waiting, and so do "circuits", the open ones; "unreadable" counts
    those that only wait themselves. "late" are the studies that have waited for unusually long;
    with ``names_studies`` the job of each group's oldest is named, and with ``names_people`` who
    began and stopped the backfill. "pauses" are what somebody
    stopped for a while; who did is in the audit trail.
    "ledger_place" is "postgresql", or the path of SQLite's file.
    "audit" says where the audit trail ends; "untold" lines wait for the syslog server, if any.
    """
    return json_response(
        200,
        {
            "software": SOFTWARE_VERSION,
            "contract": CONTRACT_VERSION,
            "problems": [*overview.problems, *overview.troubles],
            "unreadable": overview.unreadable,
            "ledger": overview.ledger,
            "ledger_place": overview.place,
            "broker": {
                "reachable": overview.broker.reachable,
                "detail": overview.broker.detail,
            },
            "backfill": (
                None
                if overview.backfill is None
                else in_json.backfill(overview.backfill, names_people=names_people)
            ),
            "late": [in_json.group(group, named=names_studies) for group in overview.late],
            "circuits": [in_json.circuit(circuit) for circuit in overview.circuits],
            "pauses": [in_json.pause(pause) for pause in overview.pauses],
            "counts": {state.value: count for state, count in overview.counts.items()},
            "targets": sorted(overview.targets),
            "queues": sorted(overview.queues),
            "other_keys": [in_json.refusal(one) for one in overview.other_keys],
            "audit": None if overview.audit is None else in_json.audit(overview.audit),
            "workers": [in_json.worker(worker, overview.at) for worker in overview.workers],
        },
    )


def _ready(overview: Overview) -> Response:
    """Say whether studies can be taken in and handed on: 200, or 503 with the sentences why not.

    What is away and comes back, such as the broker or a target, does not count: studies wait.
    """
    why = [*overview.problems, *overview.troubles]
    if overview.ledger != "ok":
        why.append(f"the ledger {overview.ledger}")
    return json_response(503 if why else 200, {"ready": not why, "problems": why})


def _studies(ledger: Ledger, request: Request) -> Response:
    """List studies, the last changed first. Raises BadQuery."""
    page = ledger.studies(
        state=request.state(),
        study_id=request.query.get("study_id") or None,
        limit=request.number("limit", default=50, minimum=1, maximum=_PAGE_LIMIT),
        offset=request.number("offset", default=0, minimum=0),
    )
    return json_response(
        200, {"total": page.total, "studies": [in_json.study(study) for study in page.studies]}
    )


def _study(ledger: Ledger, job_id: str, role: Role) -> Response:
    """Give one study with its audit trail, in which people are named to operators only."""
    study = ledger.study(job_id)
    if study is None:
        return json_response(404, {"error": "no such job"})
    events = [in_json.event(event, role) for event in ledger.events(job_id)]
    return json_response(200, {**in_json.study(study), "events": events})
