"""From Orthanc's changes to decided studies.

STABLE_STUDY alone is not durable: after a SIGTERM its callback may never come, and after a kill
not even its line in ``/changes`` does, although the study is there and called stable. So the
callback only wakes this up. What counts is the place in ``/changes``, which is kept in the ledger
in the same transaction as what was read up to it, and Orthanc's own word that a study is stable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from prichexy_plugin.events import Level, arrival_of
from prichexy_plugin.intake import InstanceFacts, Rule, decide, is_settled, may_match
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.pauses import intake_is_paused
from prichexy_plugin.studies import (
    ChangePage,
    Studies,
    StudiesUnavailable,
    Study,
    Unreadable,
    content_of,
    digests_of,
)
from prichexy_plugin.trail import Clock

__all__ = ["INSPECTED_INSTANCES", "LOOK_PAUSES", "Progress", "Watcher"]

_PAGE: Final = 200
#: How many instances of a study the rules are tried on, the first of each series first.
INSPECTED_INSTANCES: Final = 256
#: How soon to look again at a study that Orthanc does not call stable yet.
_LOOK_AGAIN: Final = timedelta(seconds=5)
#: The pauses after looks at a study that cannot be read. Together some hours: a storage that is
#: away makes every study look broken, and one that comes back in time costs none.
LOOK_PAUSES: Final = tuple(timedelta(seconds=s) for s in (5, 20, 80, 320, 1280, 3600, 3600, 3600))
#: How many rounds in a row an instance may hold up the changes before it is passed over.
_PATIENCE: Final = 5


@dataclass(frozen=True, slots=True)
class Progress:
    """Whether more changes wait already, and how many studies were looked at."""

    more: bool
    looked: int


class Watcher:
    """Reads the changes, looks at what arrived, and lets the intake rules decide.

    A study that cannot be read while Orthanc answers is looked at again after ``LOOK_PAUSES``,
    and after the last one it ends as REJECTED with UNREADABLE. It holds nothing else up.

    One thread only. Its methods raise StudiesUnavailable and SQLAlchemyError; calling them again
    later continues where they stopped.
    """

    def __init__(
        self,
        studies: Studies,
        ledger: Ledger,
        *,
        rules: tuple[Rule, ...],
        stable_age: float,
        take_existing: bool,
        clock: Clock,
    ) -> None:
        self._studies = studies
        self._ledger = ledger
        self._rules = rules
        self._stable_age = timedelta(seconds=stable_age)
        self._take_existing = take_existing
        self._clock = clock
        self._held_up = 0

    def run_once(self) -> Progress:
        """Do one page of changes, and after the last one the looks that are due.

        Not before: the next page may tell that a study has grown again. While the intake is paused
        the changes are read, so that nothing is forgotten, and nothing is looked at.
        """
        if self._read_changes():
            return Progress(more=True, looked=0)
        if intake_is_paused(self._ledger.pauses()):
            return Progress(more=False, looked=0)
        due = self._ledger.due()
        for study_id in due:
            self._look(study_id)
        return Progress(more=False, looked=len(due))

    def _read_changes(self) -> bool:
        cursor = self._cursor()
        page = self._studies.changes(since=cursor, limit=_PAGE)
        if page.last < cursor:
            # Another database stands in the old one's place: begin at its start.
            self._ledger.note({}, cursor=0)
            return True
        if page.changes:
            self._ledger.note(self._arrivals(page), cursor=page.last)
            self._held_up = 0
        return not page.done

    def _cursor(self) -> int:
        cursor = self._ledger.cursor()
        if cursor is not None:
            return cursor
        cursor = 0 if self._take_existing else self._studies.last_change()
        self._ledger.note({}, cursor=cursor)
        return cursor

    def _arrivals(self, page: ChangePage) -> dict[str, datetime]:
        now = self._clock()
        found: dict[str, datetime] = {}
        for change in page.changes:
            arrival = arrival_of(change)
            if arrival is None:
                continue
            study_id: str | None = arrival.orthanc_id
            if arrival.level is Level.INSTANCE:
                study_id = self._study_of(arrival.orthanc_id)
            if study_id is not None:
                came = min(arrival.at or now, now)
                found[study_id] = now if arrival.stable else came + self._stable_age
        return found

    def _study_of(self, instance_id: str) -> str | None:
        """Name the instance's study; None also for one that stays unreadable.

        Its study is not lost by that: Orthanc tells of that in lines of its own.
        """
        try:
            return self._studies.study_of(instance_id)
        except Unreadable as error:
            if self._held_up >= _PATIENCE:
                return None
            self._held_up += 1
            raise StudiesUnavailable from error

    def _look(self, study_id: str) -> None:
        try:
            self._look_at(study_id)
        except Unreadable:
            self._ledger.look_failed(study_id, LOOK_PAUSES)

    def _look_at(self, study_id: str) -> None:
        study = self._studies.study(study_id)
        if study is None:
            self._ledger.gone(study_id)
            return
        settled_at = self._settled_at(study)
        if settled_at > self._clock():
            self._ledger.look_later(study_id, settled_at)
            return
        decision = decide(self._facts(study), self._rules, copy=study.copy)
        instances = study.instances
        self._ledger.settle(
            study_id,
            decision,
            content=content_of(digests_of(self._studies, instances)) if decision.taken else "",
            instances=len(instances),
            last_update=study.last_update,
            present=instances,
        )

    def _settled_at(self, study: Study) -> datetime:
        """Say when to decide: after a restart Orthanc calls all studies stable, so age counts."""
        now = self._clock()
        if not study.stable:
            return now + min(_LOOK_AGAIN, self._stable_age)
        if study.last_update is None or study.last_update > now + self._stable_age:
            # No age, or one from before the clock was put back.
            return now
        return study.last_update + self._stable_age

    def _facts(self, study: Study) -> Iterator[InstanceFacts]:
        """Read instances while the rules want more, the first of every series to begin with.

        The first ones are all read, up to INSPECTED_INSTANCES, so that own output is found; of
        series that fit no rule, none.
        """
        series = [one for one in study.series if may_match(self._rules, one.modality)]
        firsts = [one.instances[0] for one in series if one.instances]
        rest = [instance for one in series for instance in one.instances[1:]]
        fitting: set[Rule] = set()
        for place, instance in enumerate((firsts + rest)[:INSPECTED_INSTANCES]):
            if place >= len(firsts) and is_settled(self._rules, fitting):
                return
            facts = self._studies.facts(instance)
            if facts is not None:
                fitting.update(rule for rule in self._rules if rule.matches(facts))
                yield facts
