"""The worker's ports, in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from prichexy_testing.generators import Unjudged
from prichexy_worker.contract import (
    ENDED,
    MAX_ATTEMPTS,
    Claim,
    ImageInDoubt,
    ImagePictures,
    ModelInfo,
    PatientsAsked,
    PatientsTold,
    Reason,
    State,
    StudyMessage,
    StudyReport,
    TextPictures,
    WorkerAnnouncement,
)
from prichexy_worker.errors import Rejected, Retryable
from prichexy_worker.ports import Anonymized, Check, InstanceName, Snapshot, unhindered
from prichexy_worker.sent import Image, Named, Sent, older_mark_of

__all__ = [
    "EVERYTHING",
    "JOB_ID",
    "STUDY_ID",
    "FakeLedger",
    "FakeSource",
    "FakeTarget",
    "IdleDeformer",
    "anonymized",
    "instance_id",
    "study_message",
]


class _Everything(Sent):
    def among(self, held: Collection[Image]) -> frozenset[Image]:
        return frozenset(held)

    def names(self, sop_uid: str) -> bool:
        return True

    def may_concern(self, image: Named) -> bool:
        return True


#: Stands for a ledger that had all sent that is at a target.
EVERYTHING = _Everything()
JOB_ID = "0123456789abcdef0123456789abcdef"
STUDY_ID = "00000000-11111111-22222222-33333333-44444444"


def instance_id(number: int) -> str:
    """Give an id as Orthanc's are; they sort by ``number``."""
    return f"{number:08}" + 3 * "-00000000" + f"-{number:08}"


def study_message(revision: int = 1, targets: Sequence[str] = ()) -> StudyMessage:
    """Give the message on the one study of these fakes."""
    return StudyMessage(job_id=JOB_ID, study_id=STUDY_ID, revision=revision, targets=tuple(targets))


def anonymized(
    content: bytes = b"anonymised",
    sop_uid: str = "2.25.3",
    *,
    patient_id: str = "PSEUDONYM",
    study_uid: str = "2.25.1",
    measures: Mapping[str, float] | None = None,
) -> Anonymized:
    """Give a result as the pipeline gives it."""
    return Anonymized(
        content=content,
        patient_id=patient_id,
        study_uid=study_uid,
        series_uid="2.25.2",
        sop_uid=sop_uid,
        measures=measures or {},
        durations={"decode": 0.5, "deform": 1.0},
    )


class IdleDeformer(Unjudged):
    """Stands for a generator where another function makes the results; it is never asked."""

    model = ModelInfo("idle", "0", "cd" * 32, "untrained", "Deforms nothing.")
    input_size = 256

    def displacement(self, view: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        raise AssertionError("nothing is deformed in this test")


@dataclass
class FakeSource:
    """A StudySource over a dictionary of instance id and content.

    ``on_fetch`` is called with the instance's id before it is given, ``on_snapshot`` before a look.
    """

    instances: dict[str, bytes]
    version: str = "1"
    study_uid: str = ""
    gone: bool = False
    unreachable: bool = False
    on_snapshot: Callable[[], None] = lambda: None
    on_fetch: Callable[[str], None] = lambda _instance: None
    fetched: list[str] = field(default_factory=list)

    def snapshot(self, study_id: str) -> Snapshot:
        assert study_id == STUDY_ID
        self.on_snapshot()
        if self.unreachable:
            raise Retryable(Reason.SOURCE_UNREACHABLE)
        if self.gone:
            raise Rejected(Reason.GONE)
        size = sum(map(len, self.instances.values()))
        return Snapshot(tuple(sorted(self.instances)), self.version, self.study_uid, size)

    def fetch(self, instance_id: str) -> bytes:
        self.on_fetch(instance_id)
        if instance_id not in self.instances:
            raise Retryable(Reason.CHANGED_MEANWHILE)
        self.fetched.append(instance_id)
        return self.instances[instance_id]


@dataclass
class FakeTarget:
    """An ExportTarget over a dictionary of SOPInstanceUID and content: one study's, ``study_uid``.

    All that it holds is one patient's, ``patient_id``: that of what was stored last.

    ``refuse_after`` is the number of instances that it takes before it does not answer any more
    to ``store``; ``alter`` changes what it stores; ``on_store`` is called before each. One that
    does not recall fails the test when it is asked to take back.
    """

    held: dict[str, bytes] = field(default_factory=dict)
    study_uid: str = "2.25.1"
    patient_id: str = "PSEUDONYM"
    recalls: bool = True
    proves: bool = True
    refuse_after: int | None = None
    refuse_withdrawal: bool = False
    alter: Callable[[bytes], bytes] = lambda content: content
    on_store: Callable[[Anonymized], None] = lambda _instance: None
    stores: int = 0
    withdrawn: list[str] = field(default_factory=list)

    def check(self) -> None:
        pass

    def store(self, instance: Anonymized) -> None:
        self.on_store(instance)
        if self.refuse_after is not None and self.stores >= self.refuse_after:
            raise Retryable(Reason.TARGET_UNREACHABLE)
        self.stores += 1
        self.patient_id = instance.patient_id
        self.held[instance.sop_uid] = self.alter(instance.content)

    def holds(self, instance: InstanceName) -> bool:
        assert self.recalls
        return instance.sop_uid in self.held

    def differences(self, kept: Sequence[Anonymized]) -> Iterator[tuple[str, ...]]:
        for instance in kept:
            held = self.held.get(instance.sop_uid)
            yield () if held == instance.content else ("altered" if held else "missing",)

    def fetch(self, instance: InstanceName) -> bytes | None:
        return self.held.get(instance.sop_uid)

    def withdraw(self, instance: InstanceName) -> None:
        self._may_withdraw()
        self.held.pop(instance.sop_uid, None)

    def withdraw_study(self, study_uid: str, sent: Sent, may_go_on: Check = unhindered) -> bool:
        self._may_withdraw()
        self.withdrawn.append(study_uid)
        if study_uid != self.study_uid:
            return True
        may_go_on()
        mine = self._among(sent)
        self.held = {uid: content for uid, content in self.held.items() if uid not in mine}
        return not self.held

    def withdraw_others(
        self, kept: Sequence[Anonymized], sent: Sent, may_go_on: Check = unhindered
    ) -> None:
        self._may_withdraw()
        lost = self._among(sent) - {instance.sop_uid for instance in kept}
        if lost:
            may_go_on()
        self.held = {uid: content for uid, content in self.held.items() if uid not in lost}

    def close(self) -> None:
        pass

    def _among(self, sent: Sent) -> set[str]:
        held = [Image(self.patient_id, self.study_uid, uid) for uid in self.held]
        return {image.sop_uid for image in sent.among(held)}

    def _may_withdraw(self) -> None:
        assert self.recalls
        if self.refuse_withdrawal:
            raise Retryable(Reason.TARGET_UNREACHABLE)


@dataclass
class FakeLedger:
    """A Reporter with the plugin's fence: only reports under the last claim are accepted.

    A claim of a higher revision than any before plays new instances that have come.

    ``left`` and ``final`` are what each claim says. ``sent`` are the marks of what earlier attempts
    sent: unless a test says otherwise, all that these fakes call images; ``sent_as`` are the names
    of the study that each claim tells.

    Beside that it refuses the reports on the states in ``refuses``, and does not answer to those on
    ``unreachable_on``; PROCESSING means the claim, ``unsure`` that it does not answer whether one
    holds, ``keeps_pictures`` False that it keeps none. ``others`` says how many more patients have
    the study's UID. ``on_report`` is called before each. Each report goes through JSON, as in
    reality.
    """

    refuses: frozenset[State] = frozenset()
    unreachable_on: frozenset[State] = frozenset()
    unsure: bool = False
    keeps_pictures: bool = True
    others: int = 0
    on_report: Callable[[StudyReport], None] = lambda _report: None
    revision: int = 0
    attempts: int = 0
    left: int = MAX_ATTEMPTS
    final: bool = False
    ended: State | None = None
    sent_as: tuple[str, ...] = ()
    sent: set[str] = field(default_factory=lambda: {older_mark_of(f"2.25.{n}") for n in range(10)})
    reports: list[StudyReport] = field(default_factory=list)
    questions: list[StudyReport] = field(default_factory=list)
    accepted: list[StudyReport] = field(default_factory=list)
    announcements: list[WorkerAnnouncement] = field(default_factory=list)
    shown: list[TextPictures] = field(default_factory=list)
    whole: list[ImageInDoubt] = field(default_factory=list)
    images: list[ImagePictures] = field(default_factory=list)

    def report(self, report: StudyReport) -> Claim:
        self.on_report(report)
        report = StudyReport.from_json(json.loads(json.dumps(report.to_json(), allow_nan=False)))
        if report.state is State.PROCESSING and report.attempt > 0:
            if self.unsure:
                raise Retryable(Reason.SOURCE_UNREACHABLE)
            self.questions.append(report)
            self.sent |= set(report.images)
            return self._answer(self._holds(report))
        if report.state in self.unreachable_on:
            raise Retryable(Reason.SOURCE_UNREACHABLE)
        self.reports.append(report)
        claims = report.state is State.PROCESSING
        if claims and report.revision > self.revision:
            self.revision, self.attempts, self.ended = report.revision, 0, None
        free = report.revision == self.revision and self.ended is None
        proceed = report.state not in self.refuses and (free if claims else self._holds(report))
        if proceed:
            self.attempts += claims
            self.accepted.append(report)
            self.ended = report.state if report.state in ENDED else None
        return self._answer(proceed)

    def show(self, pictures: TextPictures) -> Claim:
        if not self.keeps_pictures:
            raise Retryable(Reason.SOURCE_UNREACHABLE)
        self.shown.append(TextPictures.from_json(json.loads(json.dumps(pictures.to_json()))))
        held = (pictures.revision, pictures.attempt) == (self.revision, self.attempts)
        return self._answer(held and self.ended is None)

    def show_whole(self, image: ImageInDoubt) -> Claim:
        if not self.keeps_pictures:
            raise Retryable(Reason.SOURCE_UNREACHABLE)
        self.whole.append(ImageInDoubt.from_json(json.loads(json.dumps(image.to_json()))))
        held = (image.revision, image.attempt) == (self.revision, self.attempts)
        return self._answer(held and self.ended is None)

    def show_image(self, pictures: ImagePictures) -> Claim:
        if not self.keeps_pictures:
            raise Retryable(Reason.SOURCE_UNREACHABLE)
        self.images.append(ImagePictures.from_json(json.loads(json.dumps(pictures.to_json()))))
        held = (pictures.revision, pictures.attempt) == (self.revision, self.attempts)
        return self._answer(held and self.ended is None)

    def patients(self, asked: PatientsAsked, study_uid: str) -> PatientsTold:
        asked = PatientsAsked.from_json(json.loads(json.dumps(asked.to_json())))
        held = (asked.revision, asked.attempt) == (self.revision, self.attempts)
        told = PatientsTold(held and self.ended is None, patients=1 + self.others)
        return PatientsTold.from_json(json.loads(json.dumps(told.to_json())))

    def announce(self, announcement: WorkerAnnouncement) -> None:
        self.announcements.append(announcement)

    @property
    def states(self) -> list[State]:
        """The states that were reported and accepted, in order; questions are none."""
        return [report.state for report in self.accepted]

    def _holds(self, report: StudyReport) -> bool:
        current = (report.revision, report.attempt) == (self.revision, self.attempts)
        return current and self.ended is None

    def _answer(self, proceed: bool) -> Claim:
        return Claim(
            proceed,
            attempt=self.attempts if proceed else 0,
            left=self.left if proceed else 0,
            final=self.final,
            images=tuple(sorted(self.sent)) if proceed else (),
            study_uids=self.sent_as if proceed else (),
        )
