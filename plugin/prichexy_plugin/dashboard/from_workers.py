"""What workers post: reports, announcements and pictures; each is answered in their version."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from prichexy_plugin.chain import PLUGIN
from prichexy_plugin.dashboard.http import Request, Response, json_response
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.pictures import Pictures
from prichexy_plugin.records import StudyRecord
from prichexy_plugin.security import user_of
from prichexy_plugin.studies import StudiesUnavailable, Unreadable
from prichexy_worker.contract import (
    MOST_TARGETS,
    REQUEST_HEADER,
    WHOLE_PICTURE_BYTES,
    WHOLE_SIDE,
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

__all__ = [
    "BODY_LIMIT",
    "NotKept",
    "answer_post",
    "holding_study",
    "take_announcement",
    "take_doubt",
    "take_pictures",
    "take_report",
]

#: Bytes of a body that holds no pictures.
BODY_LIMIT: Final = 64 * 1024
#: Of what holds pictures; the contract allows somewhat more than is ever sent.
_LARGER: Final = {
    "pictures": 5 * 1024 * 1024,
    "doubts": 4 * WHOLE_PICTURE_BYTES // 3 + BODY_LIMIT,
    "images": 5 * 1024 * 1024,
}
#: Where a PNG file says its width and height.
_PNG_SIZES: Final = slice(16, 24)
#: A report has three. Orthanc's threads have small stacks: a parser that descends into hundreds of
#: nested lists there ends the whole Orthanc.
_BRACKETS: Final = 16
#: An announcement has one more for each export target.
_WORKERS_BRACKETS: Final = _BRACKETS + MOST_TARGETS
#: The version of the contract from which on workers ask the plugin for patients, not Orthanc.
_ASKS_US: Final = 3


class NotKept(Exception):
    """Orthanc did not take a picture, for instance because its disk is full."""


class Crowded(Exception):
    """No other worker can be taken note of now, nor another model of one."""


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
    limit = _LARGER.get(request.path.rpartition("/")[2], BODY_LIMIT)
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
    """Give what keeps an ImageInDoubt: its picture beside the study, its boxes in the ledger.

    One of fewer pixels than a person needs is refused, as workers of before drew it: nobody shall
    have to say of a picture too small to be read that nothing in it names anybody.
    """

    def take(data: Any) -> object:
        image = ImageInDoubt.from_json(data)
        if _longer_side(image.picture) < min(WHOLE_SIDE, max(image.rows, image.columns)):
            raise ContractError("image in doubt: the picture is too small to be decided over")
        study = holding_study(ledger, image)
        if study is None:
            return Claim(proceed=False).to_json(version)
        ledger.note_pictures(image.job_id, 1, study.worker_id or PLUGIN)
        if not pictures.keep_whole(study.study_id, image.number, image.picture):
            raise NotKept
        ledger.note_doubt(image)
        return Claim(proceed=True, attempt=image.attempt).to_json(version)

    return take


def _longer_side(png: bytes) -> int:
    """Give the longer side of a PNG file in pixels, as its header says (ISO/IEC 15948, 11.2.2)."""
    if png[12:16] != b"IHDR" or len(png) < _PNG_SIZES.stop:
        return 0
    sides: tuple[int, int] = struct.unpack(">II", png[_PNG_SIZES])
    return max(sides)


def holding_study(
    ledger: Ledger, shown: TextPictures | ImageInDoubt | ImagePictures | PatientsAsked
) -> StudyRecord | None:
    """Give the study that a worker speaks of, None unless the claim holds that it names."""
    study = ledger.study(shown.job_id)
    claim = (State.PROCESSING, shown.revision, shown.attempt)
    if study is None or (study.state, study.revision, study.attempts) != claim:
        return None
    return study
