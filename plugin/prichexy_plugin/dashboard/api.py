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
                            answer is the backfill as in /health

    POST /models            {"changes": [...]} of a model store's history (model_changes); the
                            answer is {"told": number}, so many lines were new
    POST /deeds             {"deeds": [...]} of what else the command line did (outside_deeds); the
                            same answer

POSTs carry ``contract.REQUEST_HEADER``. What workers tell and ask comes from WorkerUser, a
backfill from an operator, changes of the model and deeds from an administrator. An error is
{"error": sentence} with its status.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Final

from prichexy_plugin.backfill import MAX_RATE, Backfill
from prichexy_plugin.chain import PLUGIN
from prichexy_plugin.dashboard.http import Request, Response, json_response
from prichexy_plugin.dashboard.view import Gateway, Overview
from prichexy_plugin.dashboard.wording import actor_for
from prichexy_plugin.key_watch import Refusal
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.model_changes import MOST_CHANGES, read_changes
from prichexy_plugin.outside_deeds import MOST_DEEDS, read_deeds
from prichexy_plugin.pauses import Pause
from prichexy_plugin.pictures import Pictures
from prichexy_plugin.records import EventRecord, StudyRecord, WorkerRecord
from prichexy_plugin.security import Role, user_of
from prichexy_plugin.studies import StudiesUnavailable, Unreadable
from prichexy_plugin.sweep import Group
from prichexy_plugin.trail import ChainState
from prichexy_worker.contract import (
    CONTRACT_VERSION,
    MOST_TARGETS,
    REQUEST_HEADER,
    SOFTWARE_VERSION,
    Claim,
    ContractError,
    ImageInDoubt,
    ImagePictures,
    PatientsAsked,
    Reason,
    State,
    StudyReport,
    TextPictures,
    WorkerAnnouncement,
)
from prichexy_worker.retry import Circuit

__all__ = [
    "NotKept",
    "answer_backfill",
    "answer_deeds",
    "answer_health",
    "answer_model_changes",
    "answer_picture",
    "answer_post",
    "answer_ready",
    "answer_studies",
    "answer_study",
    "answer_whole_picture",
    "holding_study",
    "steer_backfill",
    "take_announcement",
    "take_doubt",
    "take_pictures",
    "take_report",
]

_BODY_LIMIT: Final = 64 * 1024
#: Of what holds pictures; the contract allows somewhat more than is ever sent.
_LARGER: Final = {"pictures": 5 * 1024 * 1024, "doubts": 2 * 1024 * 1024, "images": 5 * 1024 * 1024}
#: A report has three. Orthanc's threads have small stacks: a parser that descends into hundreds of
#: nested lists there ends the whole Orthanc.
_BRACKETS: Final = 16
#: An announcement has one more for each export target.
_WORKERS_BRACKETS: Final = _BRACKETS + MOST_TARGETS
_SMALL_BODY: Final = 256
#: The version of the contract from which on workers ask the plugin for patients, not Orthanc.
_ASKS_US: Final = 3
_PAGE_LIMIT: Final = 500


class NotKept(Exception):
    """Orthanc did not take a picture, for instance because its disk is full."""


class Crowded(Exception):
    """No other worker can be taken note of now, nor another model of one."""


def answer_health(overview: Overview, *, names_studies: bool = True) -> Response:
    """Say how everything is; always 200, so that a probe of Orthanc itself does not fail.

    "problems" keep all studies waiting, and so do "circuits", the open ones; "unreadable" counts
    those that only wait themselves. "late" are the studies that have waited for unusually long;
    with ``names_studies`` the job of each group's oldest is named. "pauses" are what somebody
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
            "backfill": None if overview.backfill is None else _backfill(overview.backfill),
            "late": [_group(group, named=names_studies) for group in overview.late],
            "circuits": [_circuit(circuit) for circuit in overview.circuits],
            "pauses": [_pause(pause) for pause in overview.pauses],
            "counts": {state.value: count for state, count in overview.counts.items()},
            "targets": sorted(overview.targets),
            "queues": sorted(overview.queues),
            "other_keys": [_refusal(one) for one in overview.other_keys],
            "audit": None if overview.audit is None else _audit(overview.audit),
            "workers": [_worker(worker, overview.at) for worker in overview.workers],
        },
    )


def answer_ready(overview: Overview) -> Response:
    """Say whether studies can be taken in and handed on: 200, or 503 with the sentences why not.

    What is away and comes back, such as the broker or a target, does not count: studies wait.
    """
    why = [*overview.problems, *overview.troubles]
    if overview.ledger != "ok":
        why.append(f"the ledger {overview.ledger}")
    return json_response(503 if why else 200, {"ready": not why, "problems": why})


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


def answer_study(ledger: Ledger, job_id: str, role: Role) -> Response:
    """Give one study with its audit trail, in which people are named to operators only."""
    study = ledger.study(job_id)
    if study is None:
        return json_response(404, {"error": "no such job"})
    events = [_event(event, role) for event in ledger.events(job_id)]
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
    limit = _LARGER.get(request.path.rpartition("/")[2], _BODY_LIMIT)
    if len(request.body) > limit:
        return json_response(413, {"error": "the body is too large"})
    brackets = _WORKERS_BRACKETS if request.path.endswith("/workers") else _BRACKETS
    if request.body.count(b"[") + request.body.count(b"{") > brackets:
        return json_response(422, {"error": "the body is nested or listed too much"})
    try:
        return json_response(200, take(json.loads(request.body)))
    except ContractError as error:
        return json_response(422, {"error": str(error)})
    except NotKept:
        return json_response(503, {"error": "Orthanc does not keep the picture"})
    except Crowded:
        return json_response(503, {"error": "too many workers have announced themselves"})
    except (StudiesUnavailable, Unreadable):
        return json_response(503, {"error": "Orthanc does not answer the plugin"})
    except ValueError:
        return json_response(422, {"error": "the body is not JSON"})


def take_report(ledger: Ledger, version: int) -> Callable[[Any], object]:
    """Give what takes a StudyReport in and answers with a Claim, in the worker's ``version``."""

    def take(data: Any) -> object:
        report = StudyReport.from_json(data)
        if version < _ASKS_US and report.reason is Reason.SOURCE_UNREACHABLE:
            # It reached this very Orthanc, which refused what workers of before ask of it.
            report = replace(report, reason=Reason.OLDER_WORKER)
        return ledger.report(report).to_json(version)

    return take


def take_announcement(ledger: Ledger, version: int) -> Callable[[Any], object]:
    """Give what takes a WorkerAnnouncement in and answers with the version of both sides."""

    def take(data: Any) -> object:
        if not ledger.announce(WorkerAnnouncement.from_json(data)):
            raise Crowded
        return {"version": version}

    return take


def take_pictures(ledger: Ledger, pictures: Pictures, version: int) -> Callable[[Any], object]:
    """Give what keeps TextPictures beside their study, and answers as ``take_report``'s does."""

    def take(data: Any) -> object:
        shown = TextPictures.from_json(data)
        study = holding_study(ledger, shown)
        if study is None:
            return Claim(proceed=False).to_json(version)
        ledger.note_pictures(shown.job_id, len(shown.pictures), study.worker_id or PLUGIN)
        for number, picture in enumerate(shown.pictures, start=1):
            if not pictures.keep(study.study_id, number, picture):
                raise NotKept
        return Claim(proceed=True, attempt=shown.attempt).to_json(version)

    return take


def take_doubt(ledger: Ledger, pictures: Pictures, version: int) -> Callable[[Any], object]:
    """Give what keeps an ImageInDoubt: its picture beside the study, its boxes in the ledger."""

    def take(data: Any) -> object:
        image = ImageInDoubt.from_json(data)
        study = holding_study(ledger, image)
        if study is None:
            return Claim(proceed=False).to_json(version)
        ledger.note_pictures(image.job_id, 1, study.worker_id or PLUGIN)
        if not pictures.keep_whole(study.study_id, image.number, image.picture):
            raise NotKept
        ledger.note_doubt(image)
        return Claim(proceed=True, attempt=image.attempt).to_json(version)

    return take


def holding_study(
    ledger: Ledger, shown: TextPictures | ImageInDoubt | ImagePictures | PatientsAsked
) -> StudyRecord | None:
    """Give the study that a worker speaks of, None unless the claim holds that it names."""
    study = ledger.study(shown.job_id)
    claim = (State.PROCESSING, shown.revision, shown.attempt)
    if study is None or (study.state, study.revision, study.attempts) != claim:
        return None
    return study


def answer_whole_picture(
    ledger: Ledger, pictures: Pictures, job_id: str, number: int, actor: str
) -> Response:
    """Give the picture of an image that a human may decide over; the trail says who looked."""
    study = ledger.study(job_id)
    known = any(image.number == number for image in ledger.in_doubt(job_id))
    picture = pictures.whole(study.study_id, number) if study is not None and known else None
    if picture is None:
        return Response(404, "text/plain; charset=utf-8", "There is no such picture.\n")
    ledger.note_picture_shown(job_id, actor)
    return Response(200, "image/png", picture)


def answer_picture(
    ledger: Ledger, pictures: Pictures, job_id: str, number: int, actor: str
) -> Response:
    """Give one picture of a study that a human must look at; the audit trail says who did."""
    study = ledger.study(job_id)
    known = study is not None and number <= study.measures.get("text_pictures", 0)
    picture = pictures.picture(study.study_id, number) if study is not None and known else None
    if picture is None:
        return Response(404, "text/plain; charset=utf-8", "There is no such picture.\n")
    ledger.note_picture_shown(job_id, actor)
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
        "targets": list(study.targets),
        "first_seen": study.first_seen.isoformat(),
        "updated": study.updated.isoformat(),
        "worker_id": study.worker_id,
        "durations": dict(study.durations),
        "measures": dict(study.measures),
        "key_id": study.key_id,
        "profile": study.profile,
    }


def _event(event: EventRecord, role: Role) -> dict[str, object]:
    return {
        "at": event.at.isoformat(),
        "from": None if event.from_state is None else event.from_state.value,
        "to": event.to_state.value,
        "actor": actor_for(role, event.actor),
        "reason": None if event.reason is None else event.reason.value,
    }


def answer_model_changes(ledger: Ledger, request: Request, actor: str) -> Response:
    """Take what the command line tells of its model store, as ``actor``; 403 as above."""
    return _told(
        request, MOST_CHANGES, lambda data: ledger.note_model_changes(read_changes(data), actor)
    )


def answer_deeds(ledger: Ledger, request: Request, actor: str) -> Response:
    """Take what the command line tells of what else was done, as ``actor``; 403 as above."""
    return _told(request, MOST_DEEDS, lambda data: ledger.note_deeds(read_deeds(data), actor))


def _told(request: Request, most: int, note: Callable[[Any], int]) -> Response:
    """Hand the parsed body to ``note``, which says how much of it was new."""
    if REQUEST_HEADER.lower() not in request.headers:
        return json_response(403, {"error": f"the header {REQUEST_HEADER} is missing"})
    if len(request.body) > _BODY_LIMIT or request.body.count(b"[") + request.body.count(b"{") > (
        most + 2
    ):
        return json_response(413, {"error": "the body is too large"})
    try:
        told = note(json.loads(request.body))
    except ContractError as error:
        return json_response(422, {"error": str(error)})
    except ValueError:
        return json_response(422, {"error": "the body is not JSON"})
    return json_response(200, {"told": told})


def answer_backfill(gateway: Gateway, ledger: Ledger, request: Request, user: str) -> Response:
    """Begin or stop a backfill for ``user``, who may; 403 without the header, as above."""
    if REQUEST_HEADER.lower() not in request.headers:
        return json_response(403, {"error": f"the header {REQUEST_HEADER} is missing"})
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


def _audit(chain: ChainState) -> dict[str, object]:
    return {
        "head": {"number": chain.head.number, "digest": chain.head.digest},
        "checkpoint": {"number": chain.checkpoint.number, "digest": chain.checkpoint.digest},
        "lines": chain.lines,
        "keyed": chain.keyed,
        "ends_at_head": chain.ends_at_head,
        "untold": None if chain.told is None else chain.head.number - chain.told,
    }


def _refusal(one: Refusal) -> dict[str, object]:
    return {"worker_id": one.worker_id, "key_id": one.key_id, "known": one.known}


def _group(group: Group, *, named: bool) -> dict[str, object]:
    job = {"job_id": group.oldest.job_id} if named else {}
    return {
        "state": group.state.value,
        "cause": group.cause.value,
        "sentence": group.cause.sentence,
        "count": group.count,
        "oldest": {**job, "since": group.oldest.since.isoformat()},
    }


def _circuit(circuit: Circuit) -> dict[str, object]:
    return {
        "blame": circuit.blame.value,
        "targets": list(circuit.targets),
        "reason": None if circuit.reason is None else circuit.reason.value,
        "reason_sentence": None if circuit.reason is None else circuit.reason.sentence,
        "opened": None if circuit.opened is None else circuit.opened.isoformat(),
        "failed_probes": circuit.failed_probes,
        "probe_at": None if circuit.probe_at is None else circuit.probe_at.isoformat(),
    }


def _pause(pause: Pause) -> dict[str, object]:
    return {
        "stage": pause.stage.value,
        "target": pause.target,
        "since": pause.since.isoformat(),
        "reason": pause.reason.value,
        "reason_sentence": pause.reason.sentence,
    }


def _worker(worker: WorkerRecord, at: datetime) -> dict[str, object]:
    told = asdict(worker.announcement)
    del told["targets"]  # addresses are for who has a role on the dashboard
    return {
        **told,
        "seen_seconds_ago": max(0.0, (at - worker.seen).total_seconds()),
    }
