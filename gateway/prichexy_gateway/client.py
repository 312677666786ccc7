"""REST to a running gateway: the plugin's API, the ingest and the export Orthanc."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from prichexy_gateway.deeds import DoneDeed
from prichexy_gateway.errors import Failed, Misconfigured
from prichexy_store.history import Change
from prichexy_worker.contract import API_ROOT, REQUEST_HEADER, State
from prichexy_worker.settings import Settings

__all__ = ["Health", "OrthancClient", "StudyRow", "Unreachable", "ingest_of"]


_JOB_ID_LENGTH: Final = 32
#: The largest page that the plugin gives.
_NEWEST: Final = 500
#: As many changes as the plugin takes at once (prichexy_plugin.model_changes), held together by a
#: test.
_CHANGES_AT_A_TIME: Final = 10


class Unreachable(Failed):
    """An Orthanc did not answer, or not as it should; the text says which and how."""


@dataclass(frozen=True, slots=True)
class StudyRow:
    """One study as the ledger shows it. Nothing in it identifies a patient."""

    job_id: str
    study_id: str
    state: State
    reason: str | None
    reason_sentence: str | None
    attempts: int
    instances: int
    updated: str
    revision: int = 1
    durations: Mapping[str, float] = field(default_factory=dict)
    measures: Mapping[str, float] = field(default_factory=dict)
    key_id: str = ""
    profile: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read a row of the plugin's API; keys of later versions are passed over."""
        return cls(
            job_id=str(data["job_id"]),
            study_id=str(data["study_id"]),
            state=State(data["state"]),
            reason=data.get("reason"),
            reason_sentence=data.get("reason_sentence"),
            attempts=int(data.get("attempts") or 0),
            instances=int(data.get("instances") or 0),
            updated=str(data.get("updated") or ""),
            revision=int(data.get("revision") or 1),
            durations=dict(data.get("durations") or {}),
            measures=dict(data.get("measures") or {}),
            key_id=str(data.get("key_id") or ""),
            profile=str(data.get("profile") or ""),
        )


@dataclass(frozen=True, slots=True)
class Health:
    """What the plugin says of itself, the ledger, the broker and the workers."""

    software: str
    ledger: str
    broker_reachable: bool
    broker_detail: str
    counts: Mapping[str, int]
    workers: Sequence[Mapping[str, Any]]
    problems: Sequence[str] = ()
    circuits: Sequence[Mapping[str, Any]] = ()
    late: Sequence[Mapping[str, Any]] = ()
    backfill: Mapping[str, Any] | None = None
    targets: Sequence[str] = ()  # that the intake rules name
    queues: Sequence[str] = ()  # that they send to; none from older software
    other_keys: Sequence[Mapping[str, Any]] = ()  # workers that get no study for their key
    pauses: Sequence[Mapping[str, Any]] = ()  # what somebody stopped for a while
    ledger_place: str = ""  # "postgresql", or the path of SQLite's file

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the answer of the plugin's health page."""
        return cls(
            software=str(data["software"]),
            ledger=str(data["ledger"]),
            broker_reachable=bool(data["broker"]["reachable"]),
            broker_detail=str(data["broker"].get("detail") or ""),
            counts=dict(data["counts"]),
            workers=tuple(data["workers"]),
            problems=tuple(str(problem) for problem in data.get("problems") or ()),
            circuits=tuple(data.get("circuits") or ()),
            late=tuple(data.get("late") or ()),
            backfill=data.get("backfill"),
            targets=tuple(str(name) for name in data.get("targets") or ()),
            queues=tuple(str(name) for name in data.get("queues") or ()),
            other_keys=tuple(data.get("other_keys") or ()),
            pauses=tuple(data.get("pauses") or ()),
            ledger_place=str(data.get("ledger_place") or ""),
        )


class OrthancClient:
    """One Orthanc over REST. Every method raises Unreachable when it does not answer as it should.

    ``name`` is what people are told, such as "The ingest Orthanc". ``ca_file`` holds the
    certificates of a private authority; without it, the system's are trusted.
    """

    def __init__(
        self,
        name: str,
        url: str,
        user: str,
        password: str,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self.name = name
        self.url = url
        try:
            self._tls = ssl.create_default_context(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise Misconfigured(f"ca_file cannot be used ({type(error).__name__})") from None
        self._http = httpx.Client(
            base_url=url,
            auth=(user, password),
            timeout=timeout,
            transport=transport,
            verify=self._tls,
            # Orthanc would compress 10 MB of pixels for half a second.
            # The second one: the plugin takes changes only from programs that send it.
            headers={"Accept-Encoding": "identity", REQUEST_HEADER: "1"},
            # A proxy of the environment has no business between us and the gateway.
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def _ask(self, method: str, path: str, content: bytes | None = None) -> httpx.Response:
        try:
            response = self._http.request(method, path, content=content)
        except httpx.HTTPError as error:
            raise Unreachable(
                f"{self.name} does not answer at {self.url} ({type(error).__name__})."
            ) from None
        if response.status_code in (401, 403):
            raise Unreachable(f"{self.name} at {self.url} refuses this user or password.")
        return response

    def _json(self, path: str) -> Any:
        return self._parsed(self._ask("GET", path), path)

    def _parsed(self, response: httpx.Response, path: str) -> Any:
        if response.status_code != httpx.codes.OK:
            # The path, not the answer: an answer may repeat what it was asked about.
            raise Unreachable(
                f"{self.name} at {self.url} answered {response.status_code} to {path}."
            )
        try:
            return response.json()
        except ValueError:
            raise Unreachable(f"{self.name} at {self.url}: {path} is not JSON.") from None

    def system(self) -> Mapping[str, Any]:
        """Give what Orthanc says of itself."""
        data = self._json("/system")
        return data if isinstance(data, Mapping) else {}

    def answers_to(self, user: str, password: str) -> bool:
        """Say whether these credentials would be let in; ours are not used."""
        try:
            response = httpx.get(
                f"{self.url}/system",
                auth=(user, password),
                timeout=30.0,
                verify=self._tls,
                trust_env=False,
            )
        except httpx.HTTPError as error:
            raise Unreachable(
                f"{self.name} does not answer at {self.url} ({type(error).__name__})."
            ) from None
        return response.status_code == httpx.codes.OK

    def health(self) -> Health:
        """Ask the plugin how everything is."""
        path = f"{API_ROOT}/health"
        answer = self._ask("GET", path)
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            # What the plugin says when it could not be loaded: sentences that name no patient.
            raise Unreachable(f"{self.name}: {_problems(answer)}")
        try:
            return Health.from_json(self._parsed(answer, path))
        except (KeyError, TypeError, ValueError):
            raise Unreachable(f"{self.name}: {path} is not as this version expects it.") from None

    def backfill(self, per_minute: int) -> Mapping[str, Any]:
        """Begin a backfill at this rate, or stop it with 0; give how it is now."""
        path = f"{API_ROOT}/backfill"
        content = json.dumps({"per_minute": per_minute}).encode()
        data = self._parsed(self._ask("POST", path, content), path)
        return data if isinstance(data, Mapping) else {}

    def tell_model_changes(self, changes: Sequence[Change]) -> None:
        """Have the plugin's audit trail say what a model store's history says; once each line."""
        path = f"{API_ROOT}/models"
        whole = [change.for_the_trail(place) for place, change in enumerate(changes, start=1)]
        for begin in range(0, len(whole), _CHANGES_AT_A_TIME):
            part = {"changes": whole[begin : begin + _CHANGES_AT_A_TIME]}
            self._parsed(self._ask("POST", path, json.dumps(part).encode()), path)

    def tell_deeds(self, deeds: Sequence[DoneDeed]) -> None:
        """Have the plugin's audit trail say what the command line did; once each deed."""
        path = f"{API_ROOT}/deeds"
        whole = [asdict(deed) for deed in deeds]
        for begin in range(0, len(whole), _CHANGES_AT_A_TIME):
            part = {"deeds": whole[begin : begin + _CHANGES_AT_A_TIME]}
            self._parsed(self._ask("POST", path, json.dumps(part).encode()), path)

    def studies(self, study_id: str | None = None, limit: int = 100) -> tuple[int, list[StudyRow]]:
        """Give how many studies the ledger holds and the newest of them."""
        query = f"?limit={limit}" + (f"&study_id={study_id}" if study_id else "")
        path = f"{API_ROOT}/studies"
        data = self._json(path + query)
        try:
            return int(data["total"]), [StudyRow.from_json(row) for row in data["studies"]]
        except (KeyError, TypeError, ValueError):
            raise Unreachable(f"{self.name}: {path} is not as this version expects it.") from None

    def study(self, job_id: str) -> tuple[StudyRow, Sequence[Mapping[str, Any]]]:
        """Give one study and its events. Raises Failed when there is none with this job id."""
        path = f"{API_ROOT}/studies/{job_id}"
        answer = self._ask("GET", path)
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise Failed(f"There is no study with the job id {job_id}.")
        data = self._parsed(answer, path)
        try:
            return StudyRow.from_json(data), tuple(data["events"])
        except (KeyError, TypeError, ValueError):
            raise Unreachable(f"{self.name}: {path} is not as this version expects it.") from None

    def job_id(self, beginning: str) -> str:
        """Give the whole job id of the one study whose id begins so.

        Only the newest studies are searched. Raises Failed when there is none or several.
        """
        if len(beginning) == _JOB_ID_LENGTH:
            return beginning
        rows = self.studies(limit=_NEWEST)[1]
        found = [row.job_id for row in rows if row.job_id.startswith(beginning)]
        if len(found) != 1:
            problem = "Several studies have" if found else "There is no study with"
            raise Failed(f"{problem} a job id that begins with {beginning}. Give all 32 digits.")
        return found[0]

    def all_studies(self) -> list[str]:
        """Give Orthanc's ids of all studies."""
        return [str(study_id) for study_id in self._json("/studies")]

    def first_instance(self, study_id: str) -> str | None:
        """Give Orthanc's id of an instance of the study; None when it is gone or has none."""
        resource = study_id
        for level, below in (("studies", "Series"), ("series", "Instances")):
            path = f"/{level}/{resource}"
            answer = self._ask("GET", path)
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            ids = self._parsed(answer, path).get(below) or []
            if not ids:
                return None
            resource = str(ids[0])
        return resource

    def value(self, instance_id: str, *place: int) -> bytes | None:
        """Give the bytes of an element as they are stored; None where it is absent.

        ``place`` is its tag, after those of the sequences it is in, each with the item's number.
        """
        steps = [
            str(step) if number % 2 else f"{step >> 16:04x}-{step & 0xFFFF:04x}"
            for number, step in enumerate(place)
        ]
        path = f"/instances/{instance_id}/content/{'/'.join(steps)}"
        answer = self._ask("GET", path)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if answer.status_code != httpx.codes.OK:
            raise Unreachable(f"{self.name} at {self.url} answered {answer.status_code}.")
        return answer.content

    def settled_instances(self, study_id: str) -> int | None:
        """Give how many instances the study has, 0 when it is gone, None while more may come."""
        path = f"/studies/{study_id}"
        answer = self._ask("GET", path)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return 0
        if not self._parsed(answer, path).get("IsStable"):
            return None
        statistics = self._ask("GET", f"{path}/statistics")
        if statistics.status_code == httpx.codes.NOT_FOUND:
            return 0
        return int(self._parsed(statistics, path)["CountInstances"])

    def find(self, level: str, uid: str) -> list[str]:
        """Give Orthanc's ids of the "Study" or "Instance" objects with this UID."""
        response = self._ask("POST", "/tools/lookup", content=uid.encode("ascii", "replace"))
        if response.status_code != httpx.codes.OK:
            raise Unreachable(f"{self.name} at {self.url} answered {response.status_code}.")
        return [item["ID"] for item in response.json() if item["Type"] == level]

    def instance(self, instance_id: str) -> bytes:
        """Give an instance's DICOM file."""
        response = self._ask("GET", f"/instances/{instance_id}/file")
        if response.status_code != httpx.codes.OK:
            raise Unreachable(f"{self.name} at {self.url} answered {response.status_code}.")
        return response.content


def ingest_of(
    settings: Settings, user: str | None = None, password: str | None = None
) -> OrthancClient:
    """Give a client of a worker's ingest Orthanc: as that worker, or as another user of it."""
    return OrthancClient(
        "The ingest Orthanc",
        settings.ingest.url,
        settings.ingest.user if user is None else user,
        (settings.ingest.secret() if user is None else password) or "",
        ca_file=settings.ingest.ca_file,
    )


def _problems(answer: httpx.Response) -> str:
    try:
        problems = answer.json()["problems"]
    except (KeyError, TypeError, ValueError):
        return "the plugin is not available"
    return " ".join(str(problem) for problem in problems)
