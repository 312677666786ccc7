"""What is said of one study: the message that hands it out, reports, and the answers to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Final, Self

from prichexy_worker.contract.reading import (
    DIGEST,
    DIGEST_OR_NONE,
    EDITION_OR_NONE,
    JOB_ID,
    KEY_ID,
    KEY_ID_OR_NONE,
    MARK,
    PSEUDONYMOUS_UID,
    STUDY_ID,
    WORKER_ID,
    Reader,
)
from prichexy_worker.contract.terms import (
    CONTRACT_VERSION,
    DECISIONS,
    MAX_ATTEMPTS,
    OLDEST_VERSION,
    TARGET_NAME,
    Box,
    Errand,
    Reason,
    State,
)

__all__ = [
    "Claim",
    "Looked",
    "PatientsAsked",
    "PatientsTold",
    "StudyMessage",
    "StudyReport",
]

#: What versions below the one that is named say in place of a reason that they do not know.
_REASON_BEFORE: Final = {
    Reason.WORKER_STOPPED: (2, Reason.TOOK_TOO_LONG),
    Reason.TOO_LARGE: (DECISIONS, Reason.TOO_MANY_INSTANCES),
    Reason.RECOGNISABLE: (DECISIONS, Reason.IDENTITY_SURVIVED),
    Reason.FINDINGS_CHANGED: (DECISIONS, Reason.PIXELS_NOT_SANE),
}


@dataclass(frozen=True, slots=True)
class Looked:
    """What a person decided over one image, having looked at all of it.

    It holds for the image whose file has this SHA-256 and for no other: one that came in since, or
    was replaced, is judged as if nobody had looked. ``erase`` is filled like a text that was found;
    what is found within a box of ``keep`` is neither erased nor an alarm.
    """

    digest: str
    erase: tuple[Box, ...] = ()
    keep: tuple[Box, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Give the JSON object that ``from_json`` reads; it came with version 3."""
        return {
            "version": DECISIONS,
            "digest": self.digest,
            "erase": [side for box in self.erase for side in box],
            "keep": [side for box in self.keep for side in box],
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Parse strictly. Raises ContractError naming the key that does not fit."""
        read = Reader(data, "decision over an image", {"digest", "erase", "keep"})
        return cls(read.text("digest", DIGEST), read.boxes("erase"), read.boxes("keep"))


@dataclass(frozen=True, slots=True)
class StudyMessage:
    """One request to anonymise one study as it was at ``revision``.

    ``revision`` counts how often the study became stable anew; a report on an older one is void.
    ``targets`` are the names, in the workers' settings, of the export targets that the study goes
    to. Where none is named, they are left out of the JSON object, as before there were any, and
    the worker's settings say where to.

    ``looked`` are the decisions of people over images of the study, ``errand`` what else than to
    anonymise it is asked for. ``bundle`` is the digest of the model's bundle that it is to be made
    with, blank for the worker's own, and ``strength`` a factor on the displacement.

    Without these it is written as version 1, which can say all the rest: a worker of before takes
    it, too. With one of them it is of version 3, and a worker of before gives it back.
    """

    job_id: str
    study_id: str
    revision: int
    targets: tuple[str, ...] = ()
    looked: tuple[Looked, ...] = ()
    errand: Errand = Errand.ANONYMIZE
    bundle: str = ""
    strength: float = 1.0

    def to_json(self) -> dict[str, object]:
        """Give the JSON object that ``from_json`` reads."""
        plain = self == replace(self, looked=(), errand=Errand.ANONYMIZE, bundle="", strength=1.0)
        data: dict[str, object] = {
            "version": OLDEST_VERSION if plain else DECISIONS,
            "job_id": self.job_id,
            "study_id": self.study_id,
            "revision": self.revision,
        }
        if self.targets:
            data["targets"] = list(self.targets)
        if plain:
            return data
        looked = [one.to_json() for one in self.looked]
        return data | {
            "looked": looked,
            "errand": self.errand.value,
            "bundle": self.bundle,
            "strength": self.strength,
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Parse strictly. Raises ContractError naming the key that does not fit."""
        keys, optional = {"job_id", "study_id", "revision"}, frozenset({"targets"})
        read = Reader(data, "study message", keys, optional)
        return cls(
            job_id=read.text("job_id", JOB_ID),
            study_id=read.text("study_id", STUDY_ID),
            revision=read.count("revision", minimum=1),
            targets=read.texts("targets", TARGET_NAME),
            looked=tuple(Looked.from_json(one) for one in read.items("looked")),
            errand=read.errand("errand"),
            bundle=read.text_or_blank("bundle", DIGEST_OR_NONE),
            strength=read.strength("strength"),
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
    that the worker de-identifies with, ``edition`` that of PS3.15 Table E.1-1; ``model`` is the
    digest of the generator's weights. Blank where it is not told.

    ``target`` is the name of the export target that ``reason`` speaks against, blank where it
    speaks against none or nobody can say which. Version 1 tells neither it nor model and edition.

    ``elsewhere``: ``target`` is one that the study does not go to, where an earlier export may be.
    Told where it is so, and from version 3 on.

    ``left_at`` names the export targets that may hold something of a study that has ended without
    an export, and of one that was exported those that it does not go to and that may hold an
    earlier export; versions before 3 tell only how many they are, among the measures.
    ``originals`` are Orthanc's ids of the study's instances as the worker read them, told with
    PROCESSING under a number: the worker is to export of these and no others. ``images`` are the
    marks of what it is to send to a target, told with them (see sent.py). Both are left out where
    there are none, and in version 1.

    ``study_uid`` is the pseudonymous StudyInstanceUID under which it is to send them, told with
    them, too; left out where the study keeps its own.

    ``durations`` are seconds of at most two weeks, ``measures`` lie within 1e12 either way, and
    there are at most 128 of each; a count is below 2**31.

    ``retired_keys`` are the ids of the keys that the worker's settings name as retired: what was
    exported under them it can take back as well. Left out likewise.
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
    model: str = ""
    edition: str = ""
    target: str = ""
    elsewhere: bool = False
    left_at: tuple[str, ...] = ()
    originals: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    retired_keys: tuple[str, ...] = ()
    study_uid: str = ""

    def to_json(self, version: int = CONTRACT_VERSION) -> dict[str, object]:
        """Give the JSON object that ``from_json`` reads, in this version of the contract."""
        reason = self.reason
        if reason in _REASON_BEFORE:
            since, instead = _REASON_BEFORE[reason]
            reason = reason if version >= since else instead
        data: dict[str, object] = {
            "version": version,
            "job_id": self.job_id,
            "revision": self.revision,
            "attempt": self.attempt,
            "state": self.state.value,
            "worker_id": self.worker_id,
            "reason": None if reason is None else reason.value,
            "instances": self.instances,
            "durations": dict(self.durations),
            "measures": dict(self.measures),
            "key_id": self.key_id,
            "profile": self.profile,
        }
        if version == 1:
            return data
        data |= {"model": self.model, "edition": self.edition, "target": self.target}
        if version >= DECISIONS:
            data["left_at"] = list(self.left_at)
            if self.study_uid:
                data["study_uid"] = self.study_uid
            if self.elsewhere:
                data["elsewhere"] = True
        told = {
            "originals": list(self.originals),
            "images": list(self.images),
            "retired_keys": list(self.retired_keys),
        }
        return data | {name: values for name, values in told.items() if values}

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
        read = Reader(data, "study report", keys, frozenset({"model", "edition"}))
        return cls(
            job_id=read.text("job_id", JOB_ID),
            revision=read.count("revision", minimum=1),
            state=read.state("state"),
            worker_id=read.text("worker_id", WORKER_ID),
            reason=read.reason("reason"),
            instances=read.count("instances"),
            durations=read.seconds("durations"),
            measures=read.numbers("measures"),
            attempt=read.count("attempt"),
            key_id=read.text("key_id", KEY_ID_OR_NONE),
            profile=read.text("profile", DIGEST_OR_NONE),
            model=read.text_or_blank("model", DIGEST_OR_NONE),
            edition=read.text_or_blank("edition", EDITION_OR_NONE),
            target=read.text_or_blank("target", TARGET_NAME),
            elsewhere=read.yes_or_left_out("elsewhere"),
            left_at=read.texts("left_at", TARGET_NAME),
            originals=read.texts("originals", STUDY_ID),
            images=read.texts("images", MARK),
            retired_keys=read.texts("retired_keys", KEY_ID),
            study_uid=read.text_or_blank("study_uid", PSEUDONYMOUS_UID),
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

    ``images`` are the marks of all that workers were ever to send of the study to a target: of the
    images that stand there, a worker may remove these. Left out where there are none, and in
    version 1.

    ``study_uids`` are the pseudonymous StudyInstanceUIDs under which an export that is to be
    withdrawn may stand: it needs no original. Left out where none is known, and before version 3.

    ``another_key`` says, with ``proceed`` False, that the study waits for a worker with the key
    under which studies for its targets were exported before. Left out where it is not so, and
    before version 3.
    """

    proceed: bool
    attempt: int = 0
    left: int = MAX_ATTEMPTS
    final: bool = False
    images: tuple[str, ...] = ()
    another_key: bool = False
    study_uids: tuple[str, ...] = ()

    def to_json(self, version: int = CONTRACT_VERSION) -> dict[str, object]:
        """Give the JSON object that ``from_json`` reads, in this version of the contract.

        Its ``version`` is how the worker learns which reports the plugin reads.
        """
        data: dict[str, object] = {"version": version, **asdict(self), "images": list(self.images)}
        if version == 1 or not self.images:
            del data["images"]
        if version < DECISIONS or not self.another_key:
            del data["another_key"]
        del data["study_uids"]
        if version >= DECISIONS and self.study_uids:
            data["study_uids"] = list(self.study_uids)
        return data

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Parse strictly. Raises ContractError naming the key that does not fit."""
        read = Reader(data, "claim", {"proceed", "attempt", "left", "final"})
        return cls(
            proceed=read.yes_or_no("proceed"),
            attempt=read.count("attempt"),
            left=read.count("left"),
            final=read.yes_or_no("final"),
            images=read.texts("images", MARK),
            another_key=read.yes_or_left_out("another_key"),
            study_uids=read.texts("study_uids", PSEUDONYMOUS_UID),
        )


@dataclass(frozen=True, slots=True)
class PatientsAsked:
    """A worker asks how many patients the StudyInstanceUID of its study belongs to.

    To Orthanc, two PatientIDs in one study are two studies. The answer is ``PatientsTold``. Version
    3 brought it; of a plugin of before Orthanc itself is asked.
    """

    job_id: str
    revision: int
    attempt: int

    def to_json(self) -> dict[str, object]:
        """Give the JSON object that ``from_json`` reads, as version 3, which can say all of it."""
        return {"version": DECISIONS, **asdict(self)}

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Parse strictly. Raises ContractError naming the key that does not fit."""
        read = Reader(data, "question for patients", {"job_id", "revision", "attempt"})
        return cls(
            job_id=read.text("job_id", JOB_ID),
            revision=read.count("revision", minimum=1),
            attempt=read.count("attempt", minimum=1),
        )


@dataclass(frozen=True, slots=True)
class PatientsTold:
    """The answer: ``proceed`` is False unless the claim holds that the question came under.

    ``patients`` is how many there are, 0 when the study is no longer there.
    """

    proceed: bool
    patients: int = 0

    def to_json(self) -> dict[str, object]:
        """Give the JSON object that ``from_json`` reads; it came with version 3."""
        return {"version": DECISIONS, **asdict(self)}

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Parse strictly. Raises ContractError naming the key that does not fit."""
        read = Reader(data, "count of patients", {"proceed", "patients"})
        return cls(read.yes_or_no("proceed"), read.count("patients"))
