"""What the plugin and the workers say to each other. Standard library only.

Both sides import this module and nothing else of each other. Every value here is frozen, is
parsed strictly at the edge, and carries no identifying value: a study is named by its ``job_id``
(random, made by the plugin) and by Orthanc's own id of it.

The way of one study::

    plugin  --StudyMessage (Celery, JSON)-->  worker
    plugin  <--StudyReport (REST, JSON)-----  worker      one at each transition
    plugin  ---Claim (answer to PROCESSING)-> worker      may this worker go on?
    plugin  <--TextPictures (REST, JSON)----  worker      what a human must look at
    plugin  <--WorkerAnnouncement (REST)----  worker      at start, then as a heartbeat
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final, Self

__all__ = [
    "ANNOUNCE_INTERVAL_SECONDS",
    "API_ROOT",
    "CONTRACT_VERSION",
    "DEFAULT_QUEUE",
    "ENDED",
    "MAX_ATTEMPTS",
    "MAX_CLAIMS",
    "MOST_PICTURES",
    "REPORTABLE",
    "REQUEST_HEADER",
    "SOFTWARE_VERSION",
    "TARGET_NAME",
    "TASK_NAME",
    "Claim",
    "ContractError",
    "ModelInfo",
    "Reason",
    "Sentenced",
    "State",
    "StudyMessage",
    "StudyReport",
    "TextPictures",
    "WorkerAnnouncement",
]

#: The version of all that is installed together; setup.cfg reads it from here.
SOFTWARE_VERSION: Final = "0.1.0"
CONTRACT_VERSION: Final = 1
TASK_NAME: Final = "prichexy.anonymize_study"
DEFAULT_QUEUE: Final = "prichexy"
API_ROOT: Final = "/prichexy/api/v1"
#: Programs send this header (any value) with every POST; a browser cannot, across origins.
REQUEST_HEADER: Final = "X-PriCheXy"
#: How many attempts at a study may fail. Whoever claims it after that gives it up: it takes back
#: from the export target what an earlier revision or attempt left there, and reports FAILED. What
#: is not counted, such as an attempt while the target was away: see retry.py.
MAX_ATTEMPTS: Final = 5
#: How many claims of a study are counted at all before the plugin itself ends it as failed.
MAX_CLAIMS: Final = 2 * MAX_ATTEMPTS
ANNOUNCE_INTERVAL_SECONDS: Final = 30.0
#: So many pictures of regions in doubt a study has at most, of so many bytes each.
MOST_PICTURES: Final = 12
_PICTURE_BYTES: Final = 256 * 1024
_PNG: Final = b"\x89PNG\r\n\x1a\n"


class ContractError(ValueError):
    """A message, report or announcement that does not fit this version of the contract."""


class State(StrEnum):
    """Where a study is. The last four are ends."""

    WATCHED = "watched"  # arrived, still receiving instances
    PENDING = "pending"  # taken in; not yet handed to the broker
    QUEUED = "queued"  # the broker has it, or a worker gave it back for another attempt
    PROCESSING = "processing"  # a worker has claimed it
    EXPORTED = "exported"  # whole at the export target, read back and compared
    QUARANTINED = "quarantined"  # could not be made safe; a human decides
    FAILED = "failed"  # given up after MAX_ATTEMPTS, with the reason of the last one
    REJECTED = "rejected"  # not taken in, with the reason


#: The states that a study stays in until something new arrives for it.
ENDED: Final = frozenset({State.EXPORTED, State.QUARANTINED, State.FAILED, State.REJECTED})
#: The states that a worker may report.
REPORTABLE: Final = frozenset(
    {State.PROCESSING, State.QUEUED, State.EXPORTED, State.QUARANTINED, State.FAILED}
)


class Sentenced(StrEnum):
    """Codes for programs, each with the ``sentence`` that people are told."""

    sentence: str

    def __new__(cls, code: str, sentence: str = "") -> Self:
        """Make a member whose value is ``code``."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.sentence = sentence
        return member


class Reason(Sentenced):
    """Why a study is where it is."""

    # Intake: why a study was not taken in.
    NO_RULE_MATCHES = "no_rule_matches", "No intake rule takes this study in."
    OWN_OUTPUT = "own_output", "The study is this gateway's own output."
    COPY_OF_A_STUDY = "copy_of_a_study", "Orthanc made this study by anonymising or modifying one."
    GONE = "gone", "The study was deleted from the ingest Orthanc."
    # Quarantine: what could not be made safe.
    UNSUPPORTED_SOP_CLASS = (
        "unsupported_sop_class",
        "An object is no CR, DX or captured radiograph.",
    )
    NOT_A_CHEST_RADIOGRAPH = "not_a_chest_radiograph", "An object is not of the chest."
    NO_PIXEL_DATA = "no_pixel_data", "An object has no pixel data."
    MULTI_FRAME = "multi_frame", "An object has more than one frame."
    COLOUR = "colour", "An object is in colour."
    UNSUPPORTED_PIXELS = "unsupported_pixels", "An object's pixel format is not supported."
    UNDECODABLE = "undecodable", "An object's pixel data cannot be decoded."
    UNREADABLE = "unreadable", "An object is not readable DICOM."
    BURNED_IN_TEXT = "burned_in_text", "An object shows, or says that it shows, burned-in text."
    IDENTITY_SURVIVED = "identity_survived", "An identifying value was found in the result."
    CONFORMANCE_BROKEN = "conformance_broken", "A result breaks a DICOM rule that its source keeps."
    PIXELS_NOT_SANE = "pixels_not_sane", "A result's pixels are not like those of its source."
    CHECK_IMPOSSIBLE = "check_impossible", "A check of a result could not be made."
    INCOMPLETE_HEADER = "incomplete_header", "An object lacks an identifier that it must have."
    MIXED_PATIENTS = "mixed_patients", "The study holds objects of more than one patient."
    AMBIGUOUS_INSTANCE = "ambiguous_instance", "Two objects differ and have one SOPInstanceUID."
    TOO_MANY_INSTANCES = "too_many_instances", "The study has more instances than are allowed."
    # Retry, then failure.
    SOURCE_UNREACHABLE = "source_unreachable", "The ingest Orthanc did not answer."
    UNKNOWN_TARGET = "unknown_target", "The worker has no export target of a name in the rule."
    TARGET_UNREACHABLE = "target_unreachable", "The export target did not answer."
    TARGET_REFUSED = "target_refused", "The export target refused an instance."
    READ_BACK_DIFFERS = (
        "read_back_differs",
        "What the export target holds differs from what was sent.",
    )
    CHANGED_MEANWHILE = "changed_meanwhile", "The study changed while it was being processed."
    TOOK_TOO_LONG = "took_too_long", "The study took longer than a worker may hold it."
    UNEXPECTED = "unexpected", "The worker met an unexpected error; its log names it by the job id."
    TOO_MANY_ATTEMPTS = "too_many_attempts", "The study was tried too often without an end."


class _Reader:
    """Reads one JSON object strictly; every complaint names the key, never the value."""

    def __init__(
        self, data: object, kind: str, keys: set[str], optional: frozenset[str] = frozenset()
    ) -> None:
        if not isinstance(data, Mapping):
            raise ContractError(f"{kind}: not a JSON object")
        if data.get("version") != CONTRACT_VERSION:
            raise ContractError(f"{kind}: version is not {CONTRACT_VERSION}")
        odd = sorted(str(key) for key in set(data) - optional ^ (keys | {"version"}))
        if odd:
            raise ContractError(f"{kind}: missing or unknown: {', '.join(odd)}")
        self._data: Mapping[str, Any] = data
        self._kind = kind

    def _refuse(self, key: str) -> ContractError:
        return ContractError(f"{self._kind}: {key} is not valid")

    def text(self, key: str, pattern: re.Pattern[str]) -> str:
        value = self._data[key]
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self._refuse(key)
        return value

    def texts(self, key: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
        """Give a list of texts, empty where the key is left out."""
        values = self._data.get(key, [])
        if not isinstance(values, list) or len(set(map(str, values))) != len(values):
            raise self._refuse(key)
        if not all(isinstance(value, str) and pattern.fullmatch(value) for value in values):
            raise self._refuse(key)
        return tuple(values)

    def count(self, key: str, minimum: int = 0) -> int:
        value = self._data[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise self._refuse(key)
        return value

    def yes_or_no(self, key: str) -> bool:
        value = self._data[key]
        if not isinstance(value, bool):
            raise self._refuse(key)
        return value

    def numbers(self, key: str) -> dict[str, float]:
        value = self._data[key]
        if not isinstance(value, Mapping):
            raise self._refuse(key)
        for name, number in value.items():
            numeric = isinstance(number, int | float) and not isinstance(number, bool)
            named = isinstance(name, str) and _NAME.fullmatch(name)
            if not named or not numeric or not math.isfinite(number):
                raise self._refuse(key)
        return {name: float(number) for name, number in value.items()}

    def state(self, key: str) -> State:
        value = self._data[key]
        if not isinstance(value, str) or value not in set(REPORTABLE):
            raise self._refuse(key)
        return State(value)

    def reason(self, key: str) -> Reason | None:
        value = self._data[key]
        if value is None:
            return None
        if not isinstance(value, str) or value not in set(Reason):
            raise self._refuse(key)
        return Reason(value)

    def pictures(self, key: str) -> tuple[bytes, ...]:
        value = self._data[key]
        if not isinstance(value, list) or not 1 <= len(value) <= MOST_PICTURES:
            raise self._refuse(key)
        pictures = []
        for text in value:
            if not isinstance(text, str) or len(text) > 4 * _PICTURE_BYTES // 3 + 4:
                raise self._refuse(key)
            try:
                pictures.append(base64.b64decode(text, validate=True))
            except binascii.Error:
                raise self._refuse(key) from None
        if not all(picture.startswith(_PNG) for picture in pictures):
            raise self._refuse(key)
        return tuple(pictures)

    def model(self, key: str) -> ModelInfo:
        return ModelInfo.from_json(self._data[key])


_JOB_ID: Final = re.compile(r"[0-9a-f]{32}")
_STUDY_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_WORKER_ID: Final = re.compile(r"[A-Za-z0-9._@:-]{1,128}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_DIGEST_OR_NONE: Final = re.compile(r"([0-9a-f]{64})?")
_KEY_ID_OR_NONE: Final = re.compile(r"([0-9a-f]{16})?")
_SENTENCE: Final = re.compile(r"[^\x00-\x1f]{0,400}")
#: What an export target may be called: by the plugin's rules, and in the workers' settings.
TARGET_NAME: Final = re.compile(r"(?=.{1,32}\Z)[a-z0-9]+([_-][a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class StudyMessage:
    """One request to anonymise one study as it was at ``revision``.

    ``revision`` counts how often the study became stable anew; a report on an older one is void.
    ``targets`` are the names, in the workers' settings, of the export targets that the study goes
    to. Where none is named, they are left out of the JSON object, as before there were any, and
    the worker's settings say where to.
    """

    job_id: str
    study_id: str
    revision: int
    targets: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Give the JSON object that ``from_json`` reads."""
        data: dict[str, object] = {
            "version": CONTRACT_VERSION,
            "job_id": self.job_id,
            "study_id": self.study_id,
            "revision": self.revision,
        }
        return data | {"targets": list(self.targets)} if self.targets else data

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Parse strictly. Raises ContractError naming the key that does not fit."""
        keys, optional = {"job_id", "study_id", "revision"}, frozenset({"targets"})
        read = _Reader(data, "study message", keys, optional)
        return cls(
            job_id=read.text("job_id", _JOB_ID),
            study_id=read.text("study_id", _STUDY_ID),
            revision=read.count("revision", minimum=1),
            targets=read.texts("targets", TARGET_NAME),
        )


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which generator deforms, and what is known about it.

    ``evidence`` is "untrained" (random initial weights: no privacy is claimed), "trained"
    (trained, not yet attacked) or "measured" (with an attack report); ``statement`` is the
    sentence that people are shown.
    """

    name: str
    model_version: str
    digest: str
    evidence: str
    statement: str

    def to_json(self) -> dict[str, object]:
        """Give the JSON object that ``from_json`` reads."""
        return {"version": CONTRACT_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Parse strictly. Raises ContractError naming the key that does not fit."""
        keys = {"name", "model_version", "digest", "evidence", "statement"}
        read = _Reader(data, "model", keys)
        return cls(
            name=read.text("name", _SENTENCE),
            model_version=read.text("model_version", _SENTENCE),
            digest=read.text("digest", _DIGEST),
            evidence=read.text("evidence", re.compile("untrained|trained|measured")),
            statement=read.text("statement", _SENTENCE),
        )


@dataclass(frozen=True, slots=True)
class StudyReport:
    """A worker tells that a study moved to ``state``.

    ``durations`` are seconds by step; ``measures`` are the figures of the result by name (see
    docs/architecture.md); both are finite. ``reason`` is given with QUEUED (why again),
    QUARANTINED and FAILED.

    ``attempt`` is the number that the claim gave, and 0 in the report that asks for a claim. A
    report with the number of an older claim is void: another worker has the study now. PROCESSING
    with a number changes nothing and asks whether the claim still holds.

    ``key_id`` names the key of the pseudonyms and ``profile`` is the SHA-256 of the project profile
    that the worker de-identifies with; blank where it is not told.
    """

    job_id: str
    revision: int
    state: State
    worker_id: str
    reason: Reason | None = None
    instances: int = 0
    durations: Mapping[str, float] = field(default_factory=dict)
    measures: Mapping[str, float] = field(default_factory=dict)
    attempt: int = 0
    key_id: str = ""
    profile: str = ""

    def to_json(self) -> dict[str, object]:
        """Give the JSON object that ``from_json`` reads."""
        return {
            "version": CONTRACT_VERSION,
            "job_id": self.job_id,
            "revision": self.revision,
            "attempt": self.attempt,
            "state": self.state.value,
            "worker_id": self.worker_id,
            "reason": None if self.reason is None else self.reason.value,
            "instances": self.instances,
            "durations": dict(self.durations),
            "measures": dict(self.measures),
            "key_id": self.key_id,
            "profile": self.profile,
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Parse strictly. Raises ContractError naming the key that does not fit."""
        keys = {
            "job_id",
            "revision",
            "attempt",
            "state",
            "worker_id",
            "reason",
            "instances",
            "durations",
            "measures",
            "key_id",
            "profile",
        }
        read = _Reader(data, "study report", keys)
        return cls(
            job_id=read.text("job_id", _JOB_ID),
            revision=read.count("revision", minimum=1),
            state=read.state("state"),
            worker_id=read.text("worker_id", _WORKER_ID),
            reason=read.reason("reason"),
            instances=read.count("instances"),
            durations=read.numbers("durations"),
            measures=read.numbers("measures"),
            attempt=read.count("attempt"),
            key_id=read.text("key_id", _KEY_ID_OR_NONE),
            profile=read.text("profile", _DIGEST_OR_NONE),
        )


@dataclass(frozen=True, slots=True)
class TextPictures:
    """Pictures of the regions that a worker is in doubt about, for the human who decides.

    PNG files, at least one and at most ``MOST_PICTURES``, of up to 256 KiB. They show patients'
    data: they go to where the originals are and nowhere else. Like a report they are void unless
    ``attempt`` is the number of the claim that holds. The answer is a Claim.
    """

    job_id: str
    revision: int
    attempt: int
    pictures: tuple[bytes, ...] = field(repr=False)

    def to_json(self) -> dict[str, object]:
        """Give the JSON object that ``from_json`` reads."""
        return {
            "version": CONTRACT_VERSION,
            "job_id": self.job_id,
            "revision": self.revision,
            "attempt": self.attempt,
            "pictures": [base64.b64encode(picture).decode("ascii") for picture in self.pictures],
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Parse strictly. Raises ContractError naming the key that does not fit."""
        read = _Reader(data, "pictures", {"job_id", "revision", "attempt", "pictures"})
        return cls(
            job_id=read.text("job_id", _JOB_ID),
            revision=read.count("revision", minimum=1),
            attempt=read.count("attempt", minimum=1),
            pictures=read.pictures("pictures"),
        )


@dataclass(frozen=True, slots=True)
class Claim:
    """The plugin's answer to a report: ``proceed`` is False when the report came too late.

    A worker that reported PROCESSING and reads ``proceed=False`` drops the study without a trace:
    another attempt has ended it or has claimed it since, it was superseded by a newer revision, or
    it was given up, or the handing out is stopped and the study is sent anew later. ``attempt``
    numbers the study's claims from 1; see ``StudyReport``.

    ``left`` is how many attempts the study has left with this one; with 0 the worker gives it up
    (``MAX_ATTEMPTS``). ``final`` says that no claim follows, not even to give it up.
    """

    proceed: bool
    attempt: int = 0
    left: int = MAX_ATTEMPTS
    final: bool = False

    def to_json(self) -> dict[str, object]:
        """Give the JSON object that ``from_json`` reads."""
        return {"version": CONTRACT_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Parse strictly. Raises ContractError naming the key that does not fit."""
        read = _Reader(data, "claim", {"proceed", "attempt", "left", "final"})
        return cls(
            proceed=read.yes_or_no("proceed"),
            attempt=read.count("attempt"),
            left=read.count("left"),
            final=read.yes_or_no("final"),
        )


@dataclass(frozen=True, slots=True)
class WorkerAnnouncement:
    """A worker tells that it is alive, where it computes and with which model."""

    worker_id: str
    software: str
    device: str
    device_reason: str
    model: ModelInfo

    def to_json(self) -> dict[str, object]:
        """Give the JSON object that ``from_json`` reads."""
        return {
            "version": CONTRACT_VERSION,
            "worker_id": self.worker_id,
            "software": self.software,
            "device": self.device,
            "device_reason": self.device_reason,
            "model": self.model.to_json(),
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Parse strictly. Raises ContractError naming the key that does not fit."""
        keys = {"worker_id", "software", "device", "device_reason", "model"}
        read = _Reader(data, "worker announcement", keys)
        return cls(
            worker_id=read.text("worker_id", _WORKER_ID),
            software=read.text("software", _SENTENCE),
            device=read.text("device", _SENTENCE),
            device_reason=read.text("device_reason", _SENTENCE),
            model=read.model("model"),
        )
