"""What an attempt at a study has come to, and what is told of it under its claim.

The order in which it is told is ``study``'s.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from prichexy_worker.contract import (
    MOST_DOUBTS,
    MOST_IMAGES,
    MOST_PICTURES,
    Claim,
    ImageInDoubt,
    ImagePictures,
    PatientsAsked,
    Reason,
    State,
    StudyMessage,
    StudyReport,
    TextPictures,
)
from prichexy_worker.errors import Doubt, Retryable
from prichexy_worker.exporting import Export
from prichexy_worker.pipeline import Anonymized, Stopwatch
from prichexy_worker.ports import Reporter
from prichexy_worker.sent import marks_of
from prichexy_worker.summary import summarized

__all__ = ["Attempt", "ClaimLost", "Claimed"]

_LOG: Final = logging.getLogger(__name__)


class ClaimLost(Exception):
    """The study is another worker's now, or of a newer revision."""


@dataclass(slots=True)
class Attempt:
    """What one attempt has come to so far."""

    export: Export
    study_uid: str = ""  # the pseudonymous one; blank while the source has not told
    retired_uids: frozenset[str] = frozenset()  # those under keys that were retired
    sent_as: frozenset[str] = frozenset()  # those that the ledger knows of what is to be withdrawn
    told_uid: str = ""  # what the ledger is told; blank where it is the study's own
    originals: tuple[str, ...] = ()  # Orthanc's ids of what the results are made of
    results: list[Anonymized] = field(default_factory=list)
    pictures: tuple[bytes, ...] = field(default=(), repr=False)  # of what a human must look at
    doubts: tuple[Doubt, ...] = field(default=(), repr=False)  # that a human may decide over
    watch: Stopwatch = field(default_factory=Stopwatch)

    @property
    def first(self) -> bool:
        """Whether no attempt before this one can have left anything at a target."""
        return not (self.export.earlier or self.export.tried)

    def study_uids(self) -> set[str]:
        """Give the study's name at the targets; nothing when it was never learnt."""
        if self.study_uid or self.sent_as:
            return {self.study_uid, *self.retired_uids, *self.sent_as} - {""}
        return {result.study_uid for result in self.results}


@dataclass(frozen=True, slots=True)
class Claimed:
    """The plugin's ledger, on one study at one revision, under the claim of this number."""

    message: StudyMessage
    reporter: Reporter
    worker_id: str
    made_with: Mapping[str, str]  # key, profile, its edition and model, as reports call them
    number: int = 0
    last: bool = False  # the study ends with this attempt
    retired: tuple[str, ...] = ()  # the ids of the keys of before, as reports call them

    def tell(
        self,
        state: State,
        reason: Reason | None = None,
        attempt: Attempt | None = None,
        measures: Mapping[str, float] = MappingProxyType({}),
        target: str = "",
        elsewhere: bool = False,
        left_at: tuple[str, ...] = (),
        originals: tuple[str, ...] = (),
        images: tuple[str, ...] = (),
        study_uid: str = "",
    ) -> Claim:
        """Report ``state``; the answer tells whether it was accepted. Raises Retryable."""
        results = [] if attempt is None else attempt.results
        report = StudyReport(
            job_id=self.message.job_id,
            revision=self.message.revision,
            attempt=self.number,
            state=state,
            worker_id=self.worker_id,
            reason=reason,
            instances=len(results),
            durations={} if attempt is None else dict(attempt.watch.seconds),
            measures={**summarized([result.measures for result in results]), **measures},
            **self.made_with,
            target=target,
            elsewhere=elsewhere,
            left_at=left_at,
            originals=originals,
            images=images,
            retired_keys=self.retired,
            study_uid=study_uid,
        )
        return self.reporter.report(report)

    def show(self, pictures: tuple[bytes, ...]) -> int:
        """Have pictures kept beside the originals; gives how many are.

        A study in doubt goes to quarantine with its pictures or without them. Raises ClaimLost.
        """
        if not pictures:
            return 0
        message = self.message
        shown = TextPictures(
            message.job_id, message.revision, self.number, pictures[:MOST_PICTURES]
        )
        try:
            if not self.reporter.show(shown).proceed:
                raise ClaimLost
        except Retryable as error:
            _LOG.warning("the pictures of what is in doubt are not kept: %s", error)
            return 0
        return len(shown.pictures)

    def show_whole(self, doubts: tuple[Doubt, ...]) -> int:
        """Have whole images kept for whoever decides; gives how many are. Raises ClaimLost."""
        message = self.message
        for number, doubt in enumerate(doubts[:MOST_DOUBTS], start=1):
            image = ImageInDoubt(
                message.job_id,
                message.revision,
                self.number,
                number,
                digest=doubt.digest,
                rows=doubt.rows,
                columns=doubt.columns,
                boxes=doubt.boxes,
                picture=doubt.picture,
            )
            try:
                if not self.reporter.show_whole(image).proceed:
                    raise ClaimLost
            except Retryable as error:
                _LOG.warning("an image in doubt is not kept: %s", error)
                return number - 1
        return len(doubts[:MOST_DOUBTS])

    def show_images(
        self, results: Sequence[Anonymized], in_time: Callable[[], None] = lambda: None
    ) -> int:
        """Have exported images kept side by side with their originals, before the end is reported.

        Gives of how many they are kept, from the first on. An export is none the worse without:
        whatever stands in the way ends this, and nothing else.
        """
        shown = [result.side_by_side for result in results[:MOST_IMAGES]]
        for number, one in enumerate(shown, start=1):
            if one is None:
                return number - 1
            pictures = ImagePictures(
                self.message.job_id,
                self.message.revision,
                self.number,
                number,
                len(shown),
                one.figures,
                one.pictures,
            )
            try:
                in_time()
                if not self.reporter.show_image(pictures).proceed:
                    return number - 1
            except Retryable as error:
                _LOG.warning("the images side by side are not kept: %s", error)
                return number - 1
        return len(shown)

    def patients(self, study_uid: str) -> int:
        """Say how many patients have the study's UID at the source.

        Raises ClaimLost, Retryable.
        """
        asked = PatientsAsked(self.message.job_id, self.message.revision, self.number)
        told = self.reporter.patients(asked, study_uid)
        if not told.proceed:
            raise ClaimLost
        return told.patients

    def confirm(self, attempt: Attempt | None = None) -> None:
        """Return when the claim still holds, and is one for what ``attempt`` is to export.

        Raises ClaimLost, Retryable.
        """
        originals: tuple[str, ...] = () if attempt is None else attempt.originals
        results = [] if attempt is None else attempt.results
        images = tuple(sorted(marks_of(results)))
        uid = "" if attempt is None else attempt.told_uid
        if not self.tell(
            State.PROCESSING, originals=originals, images=images, study_uid=uid
        ).proceed:
            raise ClaimLost
