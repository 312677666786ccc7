"""Does what the retention rules say: a bounded part of it at each call.

Originals are deleted instance by instance, those that the ledger has named, as they were then, and
no other: one that comes in meanwhile stays, whatever Orthanc puts it to, and also when it comes in
the place of one that is deleted, with the same id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from prichexy_plugin.chain import Broken, Damaged, UnknownKey
from prichexy_plugin.pictures import Pictures
from prichexy_plugin.retention import Due, Rules
from prichexy_plugin.studies import Studies, Study, Unreadable, content_of, digests_of
from prichexy_worker.contract import State

if TYPE_CHECKING:
    from prichexy_plugin.ledger import Ledger
    from prichexy_plugin.trail import Clock

__all__ = ["Keeper"]

#: At each call, of each kind.
_STUDIES: Final = 10
_INSTANCES: Final = 200
_LINES: Final = 5000
#: How soon to look again at a study that cannot be deleted or forgotten now.
_LATER: Final = timedelta(days=1)
#: Lines are deleted when the oldest is so much too old: together, since it takes a line to tell.
_PRUNE_EVERY: Final = timedelta(days=1)


class Keeper:
    """One thread calls ``run_once``.

    With ``tells`` no line is deleted that a syslog server has yet to be told. Nothing is deleted by
    its age while ``believable`` is False: the clock may be ahead. ``say`` hears of studies whose
    originals stay because the audit trail does not bear out what the tables say, and of lines that
    stay because they cannot be verified.
    """

    def __init__(
        self,
        studies: Studies,
        pictures: Pictures,
        ledger: Ledger,
        rules: Rules,
        clock: Clock,
        *,
        tells: bool = False,
        stopping: Callable[[], bool] = lambda: False,
        believable: Callable[[], bool] = lambda: True,
        say: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._studies = studies
        self._pictures = pictures
        self._ledger = ledger
        self._rules = rules
        self._clock = clock
        self._tells = tells
        self._stopping = stopping
        self._believable = believable
        self._say = say
        #: When lines were due and stayed.
        self._kept_lines_at: datetime | None = None

    def run_once(self) -> bool:
        """Do the next part; say whether more may be done at once.

        Raises StudiesUnavailable and SQLAlchemyError; calling it again goes on.
        """
        # What somebody ordered, or what was begun, goes on all the same.
        rules = self._rules if self._believable() else Rules()
        more = False
        for due in self._ledger.due_originals(rules, _STUDIES):
            if self._stopping():
                return False
            more = self._with_care(due.study_id, partial(self._dispose, due)) or more
        for study_id in self._ledger.due_pictures(rules, _STUDIES):
            more = self._delete_pictures(study_id) or more
        for study_id in self._ledger.forgettable(rules, _STUDIES):
            more = self._with_care(study_id, partial(self._forget, study_id)) or more
        return self._prune(rules) or more

    def _with_care(self, study_id: str, work: Callable[[], bool]) -> bool:
        """Leave a study alone for a while that Orthanc cannot tell about."""
        try:
            return work()
        except Unreadable:
            self._postpone(study_id)
            return False

    def _dispose(self, due: Due) -> bool:
        """Delete the originals of one study, or a part of them; say whether any were."""
        if not self._ledger.is_borne_out(due):
            self._say(
                "originals of a study are due by the ledger's tables, and its audit trail does not "
                "bear that out: they stay; see prichexy audit verify"
            )
            return False
        if not due.deleting:
            if not self._ledger.is_as_old(due.study_id, self._rules.originals[due.state]):
                return False
            study = self._studies.study(due.study_id)
            if study is None:
                self._ledger.note_originals_gone(due)
                return True
            digests = digests_of(self._studies, study.instances)
            if not _is_as_it_ended(due, study, digests):
                self._postpone(due.study_id)
                return False
            if not self._ledger.begin_disposal(due, digests):
                return False
        return self._delete_originals(due.study_id)

    def _delete_originals(self, study_id: str) -> bool:
        named = self._ledger.disposing(study_id)
        there = self._there(study_id)
        for count, instance in enumerate(sorted(there & (named or {}).keys())):
            if count >= _INSTANCES or self._stopping():
                return True
            if not self._may_go(study_id, instance):
                named = None
                break
            self._studies.delete_instance(instance)
        if named is not None:
            named = self._ledger.disposing(study_id)
        there = self._there(study_id)
        if named is not None and not named.keys() & there:
            self._ledger.end_disposal(study_id)
        else:
            self._ledger.call_off_disposal(study_id, there)
        return True

    def _may_go(self, study_id: str, instance: str) -> bool:
        """Say whether a named original may be deleted now; asked before each one.

        Not once something has come in for the study, nor if another file came in its place: it may
        be a corrected image, which nobody has exported.
        """
        named = self._ledger.disposing(study_id)
        if named is None:
            return False
        digest = self._studies.digest(instance)
        return digest is None or digest == named.get(instance)

    def _there(self, study_id: str) -> frozenset[str]:
        study = self._studies.study(study_id)
        return frozenset() if study is None else frozenset(study.instances)

    def _delete_pictures(self, study_id: str) -> bool:
        age = self._rules.pictures
        if age is None or not self._ledger.is_as_old(study_id, age):
            return False
        self._ledger.begin_pictures_disposal(study_id)
        if not self._pictures.delete(study_id):
            self._postpone(study_id)
            return False
        self._ledger.end_pictures_disposal(study_id)
        return True

    def _forget(self, study_id: str) -> bool:
        if self._rules.ledger is None or not self._ledger.is_as_old(study_id, self._rules.ledger):
            return False
        if self._studies.study(study_id) is not None:
            # As soon as it were forgotten, a backfill would take it for a new one.
            self._postpone(study_id)
            return False
        return self._ledger.forget(study_id, self._rules)

    def _prune(self, rules: Rules) -> bool:
        if rules.ledger is None or self._kept_lines_lately():
            return False
        oldest = self._ledger.oldest()
        if oldest is None:
            return False
        if isinstance(oldest, Damaged):
            return self._keep_lines(f"line {oldest.number} is altered")
        before = self._clock() - rules.ledger - self._ledger.uncounted_since(oldest.number)
        if oldest.at >= before - _PRUNE_EVERY:
            return False
        told = (self._ledger.told() or 0) if self._tells else None
        try:
            return self._ledger.prune(before, told=told, most=_LINES) > 0
        except Broken as broken:
            return self._keep_lines(f"the trail is broken at line {broken.number}")
        except UnknownKey as unknown:
            return self._keep_lines(
                f"line {unknown.number} is under the key {unknown}, which neither Audit.KeyFile "
                "nor Audit.RetiredKeyFiles has"
            )

    def _keep_lines(self, why: str) -> bool:
        """Let all lines stay for a day, and say why: what was altered is evidence."""
        self._kept_lines_at = self._clock()
        self._say(
            f"lines of the audit trail may be due, and {why}: none is deleted; see prichexy audit "
            "verify"
        )
        return False

    def _kept_lines_lately(self) -> bool:
        # A clock that was put back holds nothing up.
        at = self._kept_lines_at
        return at is not None and timedelta() <= self._clock() - at < _LATER

    def _postpone(self, study_id: str) -> None:
        self._ledger.postpone_disposal(study_id, self._clock() + _LATER)


def _is_as_it_ended(due: Due, study: Study, digests: Mapping[str, str]) -> bool:
    """Say whether Orthanc holds what the study's end was about, and nothing else."""
    if not study.stable or study.last_update is None or study.last_update != due.last_update:
        return False
    if digests.keys() != set(study.instances):
        return False
    if due.state is State.REJECTED:
        return True
    if due.state is State.EXPORTED and len(digests) != due.instances:
        return False
    return content_of(digests) == due.content
