"""Stands in for the ``orthanc`` module: an ingest Orthanc of dictionaries, in this process.

It answers the few REST paths that the plugin asks, keeps a list of changes, and lets a test play
a modality (``store``), a user's request (``request``) and Orthanc's own life (``change``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

__all__ = ["Answer", "FakeOrthanc", "FakeOrthancError", "orthanc_id"]


class FakeOrthancError(Exception):
    """What ``orthanc.OrthancException`` is: a code and a text."""


def orthanc_id(*parts: str) -> str:
    """Give an id of Orthanc's form, always the same for the same parts."""
    digest = hashlib.sha1("|".join(parts).encode()).hexdigest()
    return "-".join(digest[place : place + 8] for place in range(0, 40, 8))


#: The statuses that Orthanc 1.10 has a name for, but for those that it sends in another way.
_SENDABLE: Final = frozenset(
    {
        *range(200, 209),
        226,
        300,
        *range(302, 308),
        *range(400, 405),
        *range(406, 418),
        422,
        423,
        424,
        426,
        *range(500, 508),
    }
)


@dataclass
class Answer:
    """Records what a callback answers (``orthanc.RestOutput`` of that ``plugin`` version)."""

    plugin: int = 4
    status: int = 0
    mime: str = ""
    body: str = ""
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    def AnswerBuffer(self, body: str | bytes, mime: str, /) -> None:
        self.status, self.mime = 200, mime
        self.content = body if isinstance(body, bytes) else body.encode()
        self.body = body if isinstance(body, str) else body.decode("latin-1")

    def SendHttpStatus(self, status: int, body: str | bytes, *size: int) -> None:
        if self.plugin >= 5:
            if not isinstance(body, bytes) or size:
                raise TypeError("Bad types for the arguments (2 arguments expected)")
            body = body.decode()
        elif isinstance(body, bytes) or not size:
            raise TypeError("Bad types for the arguments (3 arguments expected)")
        else:
            assert size[0] == len(body.encode()), "Orthanc cuts the body at this size"
        assert status in _SENDABLE, "Orthanc closes the connection and sends nothing"
        self.status, self.body = status, body
        self.mime = self.headers.get("Content-Type", "")

    def SendMethodNotAllowed(self, allowed: str, /) -> None:
        self.status, self.headers = 405, {"Allow": allowed}

    def SetHttpHeader(self, key: str, value: str, /) -> None:
        assert not self.status, "a header after the answer is lost"
        self.headers[key] = value

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class _Instance:
    study: str
    series: str
    tags: Mapping[str, Any]
    calling_aet: str
    content: bytes
    came: datetime


class FakeOrthanc:
    """The module as an object; ``stable`` studies are what ``IsStable`` says of them."""

    ChangeType = SimpleNamespace(ORTHANC_STARTED=10, ORTHANC_STOPPED=11, STABLE_STUDY=9)
    ErrorCode = SimpleNamespace(INEXISTENT_ITEM=7, UNKNOWN_RESOURCE=17)
    HttpMethod = SimpleNamespace(GET=1, POST=2, PUT=3, DELETE=4)
    OrthancException: type[Exception] = FakeOrthancError

    def __init__(
        self,
        configuration: Mapping[str, Any] | None = None,
        *,
        path: str = "/nonexistent/orthanc.json",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.configuration = dict(configuration or {})
        self.log: list[str] = []
        self.changes: list[dict[str, Any]] = []
        self.copies: set[str] = set()
        self.stable: set[str] = set()
        self.asked: list[str] = []
        self.broken = False
        #: Its setting StoreMD5ForAttachments.
        self.keeps_md5 = True
        #: Asked for this path, Orthanc goes away for good.
        self.break_at = ""
        #: What a path answers instead: the error's code, or bytes that are no JSON.
        self.faults: dict[str, int | bytes] = {}
        self.on_request: Callable[..., None] | None = None
        self.on_change: Callable[[int, int, str], Any] | None = None
        self.filter: Callable[..., bool] | None = None
        self.explorer = ""
        #: By study and number.
        self.attachments: dict[tuple[str, str], bytes] = {}
        #: What its database keeps for plugins.
        self.properties: dict[int, str] = {}
        self._path = path
        self._clock = clock
        self._instances: dict[str, _Instance] = {}
        self._updated: dict[str, datetime] = {}
        self._number = 0

    # --- What a test plays --------------------------------------------------------------------

    def store(
        self,
        tags: Mapping[str, Any],
        *,
        study: str = "study",
        series: str = "series",
        instance: str = "instance",
        calling_aet: str = "CR1",
        content: bytes = b"one",
    ) -> str:
        """Receive an instance as a modality sends it; give the study's id."""
        study_id = orthanc_id(study)
        series_id, instance_id = orthanc_id(study, series), orthanc_id(study, series, instance)
        new_study = study_id not in self._updated
        self._instances[instance_id] = _Instance(
            study_id, series_id, tags, calling_aet, content, self._clock()
        )
        self._updated[study_id] = self._clock()
        self.stable.discard(study_id)
        self._record("NewInstance", instance_id, "Instance")
        if new_study:
            self._record("NewStudy", study_id, "Study")
        return study_id

    def settle(self, study_id: str) -> None:
        """Make the study stable, as Orthanc does StableAge after its last instance."""
        self.stable.add(study_id)
        self._record("StableStudy", study_id, "Study")
        self.change(self.ChangeType.STABLE_STUDY, study_id)

    def delete(self, study_id: str) -> None:
        """Delete the study; Orthanc 1.10 tells nobody in ``/changes``."""
        self._updated.pop(study_id)
        self._instances = {
            key: one for key, one in self._instances.items() if one.study != study_id
        }

    def studies(self) -> list[str]:
        """Name the studies that it holds."""
        return [*self._updated]

    def change(self, kind: int, resource: str = "") -> None:
        """Call the change callback."""
        if self.on_change is not None:
            self.on_change(kind, 1, resource)

    def request(
        self,
        method: str,
        uri: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        """Call the REST callback the way Orthanc does."""
        parts = urlsplit(uri)
        raw: dict[str, Any] = {
            "method": method,
            "groups": [],
            "headers": {key.lower(): value for key, value in (headers or {}).items()},
        }
        if method == "GET":
            # As they stand in the address: Orthanc decodes none of them.
            words = (word.partition("=") for word in parts.query.split("&") if word)
            raw["get"] = {key: value for key, _, value in words}
        else:
            raw["body"] = body
        answer = Answer()
        assert self.on_request is not None
        self.on_request(answer, parts.path.rstrip("/"), **raw)
        return answer

    # --- What the plugin calls ----------------------------------------------------------------

    def ExtendOrthancExplorer(self, script: str, /) -> None:
        self.explorer = script

    def GetConfiguration(self) -> str:
        return json.dumps(self.configuration)

    def GetConfigurationPath(self) -> str:
        return self._path

    def GetGlobalProperty(self, name: int, default: str, /) -> str:
        self._require_property(name)
        return self.properties.get(name, default)

    def SetGlobalProperty(self, name: int, value: str, /) -> None:
        self._require_property(name)
        self.properties[name] = value

    def LogError(self, text: str, /) -> None:
        self.log.append(f"E {text}")

    def LogWarning(self, text: str, /) -> None:
        self.log.append(f"W {text}")

    def RegisterIncomingHttpRequestFilter(self, callback: Callable[..., bool], /) -> None:
        self.filter = callback

    def RegisterOnChangeCallback(self, callback: Callable[[int, int, str], Any], /) -> None:
        self.on_change = callback

    def RegisterRestCallback(self, pattern: str, callback: Callable[..., None], /) -> None:
        assert pattern == "/prichexy(/.*)?"
        self.on_request = callback

    def RestApiGet(self, path: str, /) -> bytes:
        self.asked.append(path)
        if self.broken:
            raise FakeOrthancError(2038, "the database is not there")
        if urlsplit(path).path == self.break_at:
            self.broken = True
            raise FakeOrthancError(2038, "the database is not there")
        fault = self.faults.get(urlsplit(path).path)
        if isinstance(fault, int):
            raise FakeOrthancError(fault, "the text may quote a value")
        if fault is not None:
            return fault
        parts = urlsplit(path)
        query = parse_qs(parts.query, keep_blank_values=True)
        words = parts.path.strip("/").split("/")
        if words == ["statistics"]:
            return json.dumps({"CountStudies": len(self._updated)}).encode()
        if words == ["studies"]:
            since, limit = int(query["since"][0]), int(query["limit"][0])
            return json.dumps(
                [self._study(one, []) for one in [*self._updated][since : since + limit]]
            ).encode()
        if words == ["changes"]:
            return json.dumps(self._changes(query)).encode()
        if words[0] == "studies" and words[1] in self._updated and words[2:] == ["attachments"]:
            return json.dumps(
                [name for study, name in self.attachments if study == words[1]]
            ).encode()
        if words[0] == "studies" and words[2:3] == ["attachments"] and words[3:]:
            content = self.attachments.get((words[1], words[3]))
            if content is not None and words[4:] == ["data"]:
                return content
            raise FakeOrthancError(self.ErrorCode.INEXISTENT_ITEM, "Inexistent item")
        if words[0] == "studies" and words[1] in self._updated:
            return json.dumps(self._study(words[1], words[2:])).encode()
        if words[0] == "instances" and words[1] in self._instances:
            return self._instance(words[1], words[2:])
        raise FakeOrthancError(self.ErrorCode.UNKNOWN_RESOURCE, "Unknown resource")

    def RestApiPost(self, path: str, body: bytes, /) -> bytes:
        self.asked.append(f"POST {path}")
        assert path == "/tools/lookup"
        if self.broken:
            raise FakeOrthancError(2038, "the database is not there")
        uid = body.decode()
        found = [study for study in self._updated if self._study_uid(study) == uid]
        return json.dumps([{"ID": one, "Type": "Study"} for one in found]).encode()

    def RestApiPut(self, path: str, body: bytes, /) -> bytes:
        words = path.strip("/").split("/")
        assert words[0] == "studies"
        assert words[2] == "attachments"
        assert 1024 <= int(words[3]) <= 65535, "Orthanc keeps the others for itself"
        if self.broken or words[1] not in self._updated:
            raise FakeOrthancError(self.ErrorCode.UNKNOWN_RESOURCE, "Unknown resource")
        self.attachments[words[1], words[3]] = body
        return b"{}"

    def RestApiDelete(self, path: str, /) -> bytes:
        self.asked.append(f"DELETE {path}")
        words = path.strip("/").split("/")
        if f"DELETE {path}" == self.break_at:
            self.broken = True
        fault = self.faults.get(f"DELETE {path}")
        if self.broken or isinstance(fault, int):
            raise FakeOrthancError(fault or 2038, "the database is not there")
        if words[0] == "instances" and words[1] in self._instances:
            study = self._instances.pop(words[1]).study
            if not any(one.study == study for one in self._instances.values()):
                del self._updated[study]
                self.attachments = {
                    key: one for key, one in self.attachments.items() if key[0] != study
                }
            return b"{}"
        if words[2:3] == ["attachments"] and (words[1], words[3]) in self.attachments:
            del self.attachments[words[1], words[3]]
            return b"{}"
        raise FakeOrthancError(self.ErrorCode.UNKNOWN_RESOURCE, "Unknown resource")

    # --- Inside -------------------------------------------------------------------------------

    def _study_uid(self, study_id: str) -> str:
        own = (one for one in self._instances.values() if one.study == study_id)
        return str(next((one.tags.get("StudyInstanceUID", "") for one in own), ""))

    def _require_property(self, name: int) -> None:
        assert 1024 <= name < 2**31, "Orthanc keeps the others for itself"
        if self.broken:
            raise FakeOrthancError(2038, "the database is not there")

    def _record(self, kind: str, resource: str, level: str) -> None:
        self._number += 1
        self.changes.append(
            {
                "ChangeType": kind,
                "Date": _written(self._clock()),
                "ID": resource,
                "ResourceType": level,
                "Seq": self._number,
            }
        )

    def _changes(self, query: Mapping[str, list[str]]) -> dict[str, Any]:
        if "last" in query:
            return {"Changes": self.changes[-1:], "Done": True, "Last": self._number}
        since, limit = int(query["since"][0]), int(query["limit"][0])
        after = [one for one in self.changes if one["Seq"] > since]
        page = after[:limit]
        last = page[-1]["Seq"] if page else self._number
        return {"Changes": page, "Done": len(after) <= limit, "Last": last}

    def _study(self, study_id: str, rest: list[str]) -> Any:
        members = {key: one for key, one in self._instances.items() if one.study == study_id}
        series = sorted({one.series for one in members.values()})
        if rest == ["series"]:
            return [
                {
                    "ID": one,
                    "MainDicomTags": {
                        key: value
                        for member in members.values()
                        if member.series == one
                        for key, value in member.tags.items()
                        if key == "Modality"
                    },
                    "Instances": [key for key, member in members.items() if member.series == one],
                }
                for one in series
            ]
        study = {
            "ID": study_id,
            "MainDicomTags": {"StudyInstanceUID": self._study_uid(study_id)},
            "IsStable": study_id in self.stable,
            "LastUpdate": _written(self._updated[study_id]),
            "Series": series,
        }
        if study_id in self.copies:
            study["ModifiedFrom"] = orthanc_id("another")
        return study

    def _instance(self, instance_id: str, rest: list[str]) -> bytes:
        one = self._instances[instance_id]
        answers: dict[tuple[str, ...], Any] = {
            (): {"ID": instance_id},
            ("study",): {"ID": one.study},
            ("simplified-tags",): one.tags,
            ("metadata",): {"RemoteAET": one.calling_aet},
        }
        if rest == ["attachments", "dicom", "md5"]:
            if not self.keeps_md5:
                raise FakeOrthancError(self.ErrorCode.UNKNOWN_RESOURCE, "Unknown resource")
            return hashlib.md5(one.content).hexdigest().encode()
        if rest == ["attachments", "dicom", "size"]:
            return str(len(one.content)).encode()
        if rest == ["metadata", "ReceptionDate"]:
            return _written(one.came).encode()
        return json.dumps(answers[tuple(rest)]).encode()


def _written(moment: datetime) -> str:
    return moment.strftime("%Y%m%dT%H%M%S")
