"""The REST API for workers and for the command line, under ``contract.API_ROOT``, in JSON.

    GET  /health            how every part is, the counts by state, the workers
    GET  /studies           ?state= &study_id= (Orthanc's id or a job id) &limit= &offset=
    GET  /studies/{job_id}  one study with its audit trail under "events"
    POST /reports           a StudyReport; the answer is a Claim
    POST /workers           a WorkerAnnouncement; the answer is {}
    POST /pictures          TextPictures; the answer is a Claim
    POST /backfill          {"per_minute": number} begins one, {"per_minute": 0} stops it; the
                            answer is the backfill as in /health

POSTs carry ``contract.REQUEST_HEADER``. The first three come from WorkerUser, the last from anybody
else. An error is {"error": sentence} with its status.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from prichexy_plugin.backfill import MAX_RATE, Backfill
from prichexy_plugin.dashboard.http import Request, Response, json_response
from prichexy_plugin.dashboard.view import Gateway, Overview
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.pictures import Pictures
from prichexy_plugin.records import EventRecord, StudyRecord, WorkerRecord
from prichexy_plugin.security import user_of
from prichexy_plugin.studies import StudiesUnavailable
from prichexy_plugin.sweep import Group
from prichexy_worker.contract import (
    CONTRACT_VERSION,
    REQUEST_HEADER,
    SOFTWARE_VERSION,
    Claim,
    ContractError,
    State,
    StudyReport,
    TextPictures,
    WorkerAnnouncement,
)
from prichexy_worker.retry import Circuit

__all__ = [
    "answer_backfill",
    "answer_health",
    "answer_picture",
    "answer_post",
    "answer_studies",
    "answer_study",
    "steer_backfill",
    "take_announcement",
    "take_pictures",
    "take_report",
]

_BODY_LIMIT: Final = 64 * 1024
#: Of pictures; the contract allows somewhat more than is ever sent.
_PICTURES_LIMIT: Final = 5 * 1024 * 1024
#: A report has three. Orthanc's threads have small stacks: a parser that descends into hundreds of
#: nested lists there ends the whole Orthanc.
_BRACKETS: Final = 16
_SMALL_BODY: Final = 256
_PAGE_LIMIT: Final = 500


class _NotKept(Exception):
    """Orthanc did not take a picture, for instance because its disk is full."""


def answer_health(overview: Overview) -> Response:
    """Say how everything is; always 200, so that a probe of Orthanc itself does not fail.

    "problems" keep all studies waiting, and so do "circuits", the open ones; "unreadable" counts
    those that only wait themselves. "late" are the studies that have waited for unusually long.
    """
    return json_response(
        200,
        {
            "software": SOFTWARE_VERSION,
            "contract": CONTRACT_VERSION,
            "problems": [*overview.problems, *overview.troubles],
            "unreadable": overview.unreadable,
            "ledger": overview.ledger,
            "broker": {
                "reachable": overview.broker.reachable,
                "detail": overview.broker.detail,
            },
            "backfill": None if overview.backfill is None else _backfill(overview.backfill),
            "late": [_group(group) for group in overview.late],
            "circuits": [_circuit(circuit) for circuit in overview.circuits],
            "counts": {state.value: count for state, count in overview.counts.items()},
            "workers": [_worker(worker, overview.at) for worker in overview.workers],
        },
    )


def answer_studies(ledger: Ledger, request: Request) -> Response:
    """List studies, the last changed first. Raises BadQuery."""
    page = ledger.studies(
        state=request.state(),
        study_id=request.query.get("study_id") or None,
        limit=request.number("limit", default=50, minimum=1, maximum=_PAGE_LIMIT),
        offset=request.number("offset", default=0, minimum=0),
    )
    return json_response(
        200, {"total": page.total, "studies": [_study(study) for study in page.studies]}
    )


def answer_study(ledger: Ledger, job_id: str) -> Response:
    """Give one study with its audit trail."""
    study = ledger.study(job_id)
    if study is None:
        return json_response(404, {"error": "no such job"})
    events = [_event(event) for event in ledger.events(job_id)]
    return json_response(200, {**_study(study), "events": events})


def answer_post(
    request: Request, worker_user: str | None, take: Callable[[Any], object]
) -> Response:
    """Check who posts, read the body and let ``take`` answer it.

    403 without the header that no other site's page can send, or when the user is not the
    workers'; 413 and 422 name what is wrong with the body.
    """
    if REQUEST_HEADER.lower() not in request.headers:
        return json_response(403, {"error": f"the header {REQUEST_HEADER} is missing"})
    if worker_user is None or user_of(request.headers) != worker_user:
        return json_response(403, {"error": "only the workers' user may report"})
    limit = _PICTURES_LIMIT if request.path.endswith("/pictures") else _BODY_LIMIT
    if len(request.body) > limit:
        return json_response(413, {"error": "the body is too large"})
    if request.body.count(b"[") + request.body.count(b"{") > _BRACKETS:
        return json_response(422, {"error": "the body is nested or listed too much"})
    try:
        return json_response(200, take(json.loads(request.body)))
    except ContractError as error:
        return json_response(422, {"error": str(error)})
    except _NotKept:
        return json_response(503, {"error": "Orthanc does not keep the picture"})
    except ValueError:
        return json_response(422, {"error": "the body is not JSON"})


def take_report(ledger: Ledger) -> Callable[[Any], object]:
    """Give what takes a StudyReport in and answers with a Claim."""
    return lambda data: ledger.report(StudyReport.from_json(data)).to_json()


def take_announcement(ledger: Ledger) -> Callable[[Any], object]:
    """Give what takes a WorkerAnnouncement in and answers with an empty object."""

    def take(data: Any) -> object:
        ledger.announce(WorkerAnnouncement.from_json(data))
        return {}

    return take


def take_pictures(ledger: Ledger, pictures: Pictures) -> Callable[[Any], object]:
    """Give what keeps TextPictures beside their study, and answers with a Claim."""

    def take(data: Any) -> object:
        shown = TextPictures.from_json(data)
        study = ledger.study(shown.job_id)
        held = study is not None and (study.state, study.revision, study.attempts) == (
            State.PROCESSING,
            shown.revision,
            shown.attempt,
        )
        if study is None or not held:
            return Claim(proceed=False).to_json()
        for number, picture in enumerate(shown.pictures, start=1):
            if not pictures.keep(study.study_id, number, picture):
                raise _NotKept
        return Claim(proceed=True, attempt=shown.attempt).to_json()

    return take


def answer_picture(ledger: Ledger, pictures: Pictures, job_id: str, number: int) -> Response:
    """Give one picture of a study that a human must look at."""
    study = ledger.study(job_id)
    known = study is not None and number <= study.measures.get("text_pictures", 0)
    picture = pictures.picture(study.study_id, number) if study is not None and known else None
    if picture is None:
        return Response(404, "text/plain; charset=utf-8", "There is no such picture.\n")
    return Response(200, "image/png", picture)


def _study(study: StudyRecord) -> dict[str, object]:
    return {
        "job_id": study.job_id,
        "study_id": study.study_id,
        "state": study.state.value,
        "reason": None if study.reason is None else study.reason.value,
        "reason_sentence": study.reason_sentence,
        "revision": study.revision,
        "attempts": study.attempts,
        "excused": study.excused,
        "instances": study.instances,
        "first_seen": study.first_seen.isoformat(),
        "updated": study.updated.isoformat(),
        "worker_id": study.worker_id,
        "durations": dict(study.durations),
        "measures": dict(study.measures),
        "key_id": study.key_id,
        "profile": study.profile,
    }


def _event(event: EventRecord) -> dict[str, object]:
    return {
        "at": event.at.isoformat(),
        "from": None if event.from_state is None else event.from_state.value,
        "to": event.to_state.value,
        "actor": event.actor,
        "reason": None if event.reason is None else event.reason.value,
    }


def answer_backfill(
    gateway: Gateway, ledger: Ledger, request: Request, worker_user: str | None
) -> Response:
    """Begin or stop a backfill; 403 as with the workers' posts, and to the workers' user."""
    user = user_of(request.headers)
    if REQUEST_HEADER.lower() not in request.headers:
        return json_response(403, {"error": f"the header {REQUEST_HEADER} is missing"})
    if user is None or user == worker_user:
        return json_response(403, {"error": "not for the workers' user"})
    try:
        data = json.loads(request.body) if len(request.body) <= _SMALL_BODY else None
    except ValueError:
        data = None
    rate = data.get("per_minute") if isinstance(data, dict) else None
    if isinstance(rate, bool) or not isinstance(rate, int) or not 0 <= rate <= MAX_RATE:
        return json_response(422, {"error": f"per_minute is not a number from 0 to {MAX_RATE}"})
    if not steer_backfill(gateway, ledger, rate, user):
        return json_response(503, {"error": "Orthanc does not answer the plugin"})
    now = ledger.backfill()
    return json_response(200, {} if now is None else _backfill(now))


def steer_backfill(gateway: Gateway, ledger: Ledger, per_minute: int, user: str) -> bool:
    """Begin a backfill, or stop it with a rate of 0; False when Orthanc does not answer."""
    if per_minute == 0:
        ledger.stop_backfill(user)
        return True
    try:
        gateway.start_backfill(per_minute, user)
    except StudiesUnavailable:
        return False
    return True


def _backfill(backfill: Backfill) -> dict[str, object]:
    return {
        "running": backfill.running,
        "started": backfill.started.isoformat(),
        "started_by": backfill.started_by,
        "per_minute": backfill.per_minute,
        "total": backfill.total,
        "seen": backfill.seen,
        "found": backfill.found,
        "again": backfill.again,
        "ended": None if backfill.ended is None else backfill.ended.isoformat(),
        "stopped_by": backfill.stopped_by,
    }


def _group(group: Group) -> dict[str, object]:
    return {
        "state": group.state.value,
        "cause": group.cause.value,
        "sentence": group.cause.sentence,
        "count": group.count,
        "oldest": {"job_id": group.oldest.job_id, "since": group.oldest.since.isoformat()},
    }


def _circuit(circuit: Circuit) -> dict[str, object]:
    return {
        "blame": circuit.blame.value,
        "reason": None if circuit.reason is None else circuit.reason.value,
        "reason_sentence": None if circuit.reason is None else circuit.reason.sentence,
        "opened": None if circuit.opened is None else circuit.opened.isoformat(),
        "failed_probes": circuit.failed_probes,
        "probe_at": None if circuit.probe_at is None else circuit.probe_at.isoformat(),
    }


def _worker(worker: WorkerRecord, at: datetime) -> dict[str, object]:
    return {
        **asdict(worker.announcement),
        "seen_seconds_ago": max(0.0, (at - worker.seen).total_seconds()),
    }
