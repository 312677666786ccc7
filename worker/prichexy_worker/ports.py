"""What the pipeline needs of the world around it. Tests give fakes; the rim gives real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NewType, Protocol, runtime_checkable

from prichexy_worker.contract import (
    Claim,
    ImageInDoubt,
    ImagePictures,
    PatientsAsked,
    PatientsTold,
    StudyReport,
    TextPictures,
    WorkerAnnouncement,
)
from prichexy_worker.sent import Sent
from prichexy_worker.side_by_side import SideBySide

__all__ = [
    "Anonymized",
    "Check",
    "ExportTarget",
    "InstanceName",
    "Readable",
    "Released",
    "Reporter",
    "Snapshot",
    "StudySource",
    "unhindered",
]

#: The bytes of a result that has passed the release gate. Only ``gate.release`` makes them.
Released = NewType("Released", bytes)
#: Returns when what is under way may go on, and raises when not.
Check = Callable[[], None]


def unhindered() -> None:
    """Let everything go on."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A study as the source holds it at one moment.

    Two equal snapshots mean that no instance came, went or was replaced in between. ``instances``
    are the source's own opaque ids, sorted; ``version`` is compared and never shown. ``study_uid``
    is the original StudyInstanceUID, where the source knows it without a look into an instance:
    only its pseudonym is ever used, and it is never shown or logged. ``size`` is what all of its
    DICOM files have together, in bytes.
    """

    instances: tuple[str, ...]
    version: str = field(repr=False)
    study_uid: str = field(default="", repr=False)
    size: int = 0


@dataclass(frozen=True, slots=True)
class InstanceName:
    """How one anonymised instance is called: by the new, pseudonymous identifiers."""

    patient_id: str
    study_uid: str
    series_uid: str
    sop_uid: str


@dataclass(frozen=True, slots=True)
class Anonymized(InstanceName):
    """One instance, ready to leave.

    ``durations`` are seconds by step; ``measures`` the figures of ``deform.measure`` and
    ``text.Cleaned.measures``. ``side_by_side`` shows it beside its original, where that was asked
    for; it stays where the originals are.
    """

    content: Released = field(repr=False)
    measures: Mapping[str, float] = field(default_factory=dict)
    durations: Mapping[str, float] = field(default_factory=dict)
    side_by_side: SideBySide | None = field(default=None, repr=False)


class StudySource(Protocol):
    """Where the originals are read. It never gives away more than it is asked for."""

    def snapshot(self, study_id: str) -> Snapshot:
        """Give the study's instances.

        Raises Rejected (GONE) when there is no such study, Retryable (SOURCE_UNREACHABLE).
        """

    def fetch(self, instance_id: str) -> bytes:
        """Give the instance's DICOM file, as it was received.

        Raises Rejected (UNREADABLE) for one that is too long, Retryable: CHANGED_MEANWHILE when
        there is no such instance, SOURCE_UNREACHABLE.
        """


class ExportTarget(Protocol):
    """Where anonymised instances go. Every method may be repeated with the same effect.

    All raise Retryable with TARGET_UNREACHABLE or TARGET_REFUSED.
    """

    @property
    def recalls(self) -> bool:
        """Whether what was stored can be taken back.

        Where it cannot, the three methods that withdraw change nothing, and are not called.
        """
        ...

    @property
    def proves(self) -> bool:
        """Whether ``differences`` shows that the target holds what it was sent.

        Where it does not, the originals are not deleted for having been exported there.
        """
        ...

    def check(self) -> None:
        """Return when the target answers and knows us; promises nothing about its free space."""

    def store(self, instance: Anonymized) -> None:
        """Make the target hold this instance, in place of any earlier one of its name.

        It may keep it from its readers until ``withdraw_others``, and ``holds`` then, too.
        """

    def holds(self, instance: InstanceName) -> bool:
        """Tell whether the target holds an instance of this name, whatever its content.

        Only asked of a target that recalls.
        """
        ...

    def differences(self, kept: Sequence[Anonymized]) -> Iterator[tuple[str, ...]]:
        """Compare what the target holds with ``kept``, which were stored; one step an item.

        An item names what differs, by tags and words such as "missing", never by a value; it is
        empty when nothing does. Between two items the caller may stop. How much a target can tell
        is its own promise: see docs/export-targets.md.
        """
        ...

    def withdraw(self, instance: InstanceName) -> None:
        """Make the target hold nothing of this instance; it is no error if it held none."""

    def withdraw_study(self, study_uid: str, sent: Sent, may_go_on: Check) -> bool:
        """Make the target hold nothing of ``sent`` in the study with this pseudonymous UID.

        ``sent`` is what this gateway's ledger had sent: whatever else is there stays, for the UID
        may be the one of a study that the target has from elsewhere. Give False when something
        stays that may be of this study, such as the images of another gateway with the same key, or
        what others added. Another patient's objects under the same UIDs are of another study: they
        are nothing that is left of this one. It is no error if the target held nothing of it.

        ``may_go_on`` is asked before each removal; what it raises comes out, and no more goes.
        """
        ...

    def withdraw_others(self, kept: Sequence[Anonymized], sent: Sent, may_go_on: Check) -> None:
        """Make the target hold, of the study and patient of ``kept``, no other image of ``sent``.

        The last word of an export: ``kept`` are the instances of one study and patient, at least
        one, and stand at every target of the study. A target that kept them from its readers lets
        them be seen now. What others added to the study there, such as a segmentation, stays, and
        so do another gateway's images. ``may_go_on`` is asked before each removal, as above.
        """

    def close(self) -> None:
        """Let go of connections. A worker keeps them as long as it lives."""


@runtime_checkable
class Readable(Protocol):
    """A target that gives back the very objects that it was sent."""

    def fetch(self, instance: InstanceName) -> bytes | None:
        """Give the DICOM file that the target holds of this instance, or None.

        Raises Retryable with TARGET_UNREACHABLE or TARGET_REFUSED.
        """


class Reporter(Protocol):
    """The plugin's ledger, as a worker sees it. Raises Retryable (SOURCE_UNREACHABLE)."""

    def report(self, report: StudyReport) -> Claim:
        """Tell of a transition; the answer tells whether it was accepted."""

    def show(self, pictures: TextPictures) -> Claim:
        """Have pictures kept beside the originals; the answer tells whether they were."""

    def show_whole(self, image: ImageInDoubt) -> Claim:
        """Have an image in doubt kept for a person; the answer tells whether the claim holds.

        A plugin of before is not asked: it has nowhere to keep it.
        """

    def show_image(self, pictures: ImagePictures) -> Claim:
        """Have those of an exported image kept there; the answer tells whether they were."""

    def patients(self, asked: PatientsAsked, study_uid: str) -> PatientsTold:
        """Tell how many patients have this StudyInstanceUID in the source.

        It is that of the study that the claim is for, blank where the source does not tell it.
        """

    def announce(self, announcement: WorkerAnnouncement) -> None:
        """Tell that this worker is alive."""
