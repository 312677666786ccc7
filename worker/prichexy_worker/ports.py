"""What the pipeline needs of the world around it. Tests give fakes; the rim gives real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NewType, Protocol

from prichexy_worker.contract import Claim, StudyReport, TextPictures, WorkerAnnouncement

__all__ = [
    "Anonymized",
    "ExportTarget",
    "InstanceName",
    "Released",
    "Reporter",
    "Snapshot",
    "StudySource",
]

#: The bytes of a result that has passed the release gate. Only ``gate.release`` makes them.
Released = NewType("Released", bytes)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A study as the source holds it at one moment.

    Two equal snapshots mean that no instance came, went or was replaced in between. ``instances``
    are the source's own opaque ids, sorted; ``version`` is compared and never shown. ``study_uid``
    is the original StudyInstanceUID, where the source knows it without a look into an instance:
    only its pseudonym is ever used, and it is never shown or logged. ``patients`` is how many have
    this StudyInstanceUID in the source: to Orthanc, two PatientIDs in one study are two studies.
    """

    instances: tuple[str, ...]
    version: str = field(repr=False)
    study_uid: str = field(default="", repr=False)
    patients: int = 1


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
    ``text.Cleaned.measures``.
    """

    content: Released = field(repr=False)
    measures: Mapping[str, float] = field(default_factory=dict)
    durations: Mapping[str, float] = field(default_factory=dict)


class StudySource(Protocol):
    """Where the originals are read. It never gives away more than it is asked for."""

    def snapshot(self, study_id: str) -> Snapshot:
        """Give the study's instances.

        Raises Rejected (GONE) when there is no such study, Retryable (SOURCE_UNREACHABLE).
        """

    def fetch(self, instance_id: str) -> bytes:
        """Give the instance's DICOM file, as it was received.

        Raises Retryable: CHANGED_MEANWHILE when there is no such instance, SOURCE_UNREACHABLE.
        """


class ExportTarget(Protocol):
    """Where anonymised instances go. Every method may be repeated with the same effect.

    All raise Retryable with TARGET_UNREACHABLE or TARGET_REFUSED.
    """

    def check(self) -> None:
        """Return when the target answers and knows us; promises nothing about its free space."""

    def store(self, instance: Anonymized) -> None:
        """Make the target hold this instance's bytes, in place of any earlier ones."""

    def fetch(self, instance: InstanceName) -> bytes | None:
        """Give what the target holds of this instance, or None when it holds none."""

    def withdraw(self, instance: InstanceName) -> None:
        """Make the target hold nothing of this instance; it is no error if it held none."""

    def withdraw_study(self, study_uid: str) -> None:
        """Make the target hold nothing of the study with this pseudonymous StudyInstanceUID.

        Whoever stored it and whenever; it is no error if the target held nothing of it.
        """

    def withdraw_others(self, kept: Sequence[Anonymized]) -> None:
        """Make the target hold, of the study and patient of ``kept``, no other image of ours.

        What others added to the study there, such as a segmentation, stays. ``kept`` are instances
        of one study and patient, at least one.
        """


class Reporter(Protocol):
    """The plugin's ledger, as a worker sees it. Raises Retryable (SOURCE_UNREACHABLE)."""

    def report(self, report: StudyReport) -> Claim:
        """Tell of a transition; the answer tells whether it was accepted."""

    def show(self, pictures: TextPictures) -> Claim:
        """Have pictures kept beside the originals; the answer tells whether they were."""

    def announce(self, announcement: WorkerAnnouncement) -> None:
        """Tell that this worker is alive."""
