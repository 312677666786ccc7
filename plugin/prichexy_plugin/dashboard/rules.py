"""The page of the intake rules and the export targets, with a dry run of other rules."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from prichexy_plugin.dashboard.forms import Forms
from prichexy_plugin.dashboard.frame import Visit, render
from prichexy_plugin.dashboard.http import FORM, FormLimit, Response, plain
from prichexy_plugin.dashboard.needs import is_silent, troubles_of
from prichexy_plugin.dashboard.view import Overview
from prichexy_plugin.dashboard.wording import ago
from prichexy_plugin.dry_run import MOST_STUDIES, Outcome, count_ways, try_rules
from prichexy_plugin.effective import without_comments
from prichexy_plugin.flow import TargetHealth
from prichexy_plugin.intake import Decision, Rank, Rule
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.pauses import Pause, holds
from prichexy_plugin.records import WorkerRecord
from prichexy_plugin.rules_text import MOST_RULES_TEXT, read_rules, rules_text
from prichexy_plugin.section import SettingsError
from prichexy_plugin.security import Role
from prichexy_plugin.studies import Studies
from prichexy_worker.contract import MOST_TARGETS, TargetInfo

__all__ = ["DryRuns", "TargetLine", "rules_page", "target_lines"]

_PURPOSE: Final = "dry run"
#: What a worker's word for a target, and for how it is checked, means.
_KINDS: Final[Mapping[str, str]] = {
    "orthanc": "Orthanc",
    "dicomweb": "DICOMweb",
    "dicom": "DICOM node",
    "folder": "folder of DICOM files",
    "png": "folder of PNG files",
}
_CHECKS: Final[Mapping[str, str]] = {
    "read_back": "all is read back and compared",
    "commitment": "the node commits itself to what it was sent",
    "none": "nothing shows that it holds what it was sent",
}
#: Bytes that a browser makes of one character at most, when it sends a form: four of UTF-8, three
#: for each. A line break takes six.
_ENCODED: Final = 12
#: So many different things that workers say of one target are shown.
_MOST_SAID: Final = 5


@dataclass(frozen=True, slots=True)
class _RuleLine:
    name: str
    conditions: tuple[str, ...]
    targets: tuple[str, ...]
    priority: str
    queue: str


@dataclass(frozen=True, slots=True)
class TargetLine:
    """One export target; ``told`` is what living workers say of it, each differing one once.

    ``rules`` are those that send there: they name it, or they name none and it is ``default``, the
    target of such studies with a living worker.
    """

    health: TargetHealth
    rules: tuple[str, ...]
    paused: bool
    exported: str
    failed: str
    told: tuple[TargetInfo, ...]
    default: bool


@dataclass(frozen=True, slots=True)
class _Study:
    job_id: str
    ways: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Count:
    way: str
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Result:
    """What a dry run found: ``columns`` are "did happen" and one for each set of rules."""

    columns: tuple[str, ...]
    studies: int
    unknown: int
    counts: tuple[_Count, ...]
    others: tuple[_Study, ...]


class DryRuns:
    """Does one dry run at a time: each asks Orthanc hundreds of questions."""

    def __init__(self, forms: Forms, studies: Studies | None) -> None:
        self._forms = forms
        self._studies = studies
        self._busy = threading.Lock()

    def take(
        self, overview: Overview, ledger: Ledger | None, own_queue: str, visit: Visit
    ) -> Response:
        """Try the rules of the form, and show what came of it.

        Raises Refused, TooLarge, SQLAlchemyError.
        """
        if not visit.may(Role.OPERATOR):
            return plain(403, "This is for users with the role operator.")
        limit = FormLimit(FORM.size + _ENCODED * MOST_RULES_TEXT, FORM.fields)
        form = self._forms.read(visit, _PURPOSE, limit)
        if ledger is None or self._studies is None:
            return plain(503, "The ledger is not open.")
        # Browsers send each line break as two characters and count one.
        text = form.get("rules", "").replace("\r\n", "\n")
        try:
            proposed = read_rules(without_comments(text), own_queue) if text.strip() else None
        except SettingsError as error:
            return rules_page(
                overview, ledger, self._forms, visit, text=text, problems=error.problems
            )
        if not self._busy.acquire(blocking=False):
            problem = "Another dry run is under way. Try again in some seconds."
            return rules_page(overview, ledger, self._forms, visit, text=text, problems=(problem,))
        try:
            sets = [overview.rules] if proposed is None else [overview.rules, proposed]
            outcomes = try_rules(self._studies, ledger.last_decided(MOST_STUDIES), sets)
        finally:
            self._busy.release()
        result = _result(outcomes, len(sets))
        return rules_page(overview, ledger, self._forms, visit, text=text, result=result)


def rules_page(
    overview: Overview,
    ledger: Ledger | None,
    forms: Forms,
    visit: Visit,
    *,
    text: str = "",
    problems: Sequence[str] = (),
    result: _Result | None = None,
) -> Response:
    """Show rules and targets. Raises SQLAlchemyError."""
    works = ledger is not None and overview.ledger == "ok"
    targets = () if ledger is None or not works else tuple(target_lines(overview, ledger, visit))
    return render(
        "rules.html",
        visit,
        needs=tuple(troubles_of(overview)) if not works else (),
        rules=tuple(map(_rule_line, overview.rules)),
        unnamed=any(not rule.targets for rule in overview.rules),
        targets=targets,
        works=works,
        token=forms.token(visit, _PURPOSE) if works and visit.may(Role.OPERATOR) else None,
        text=text or rules_text(overview.rules),
        problems=problems,
        result=result,
        kinds=defaultdict(str, _KINDS),
        checks=_CHECKS,
        most=MOST_STUDIES,
        longest=MOST_RULES_TEXT,
    )


def targets_told(
    workers: Iterable[WorkerRecord], now: datetime
) -> dict[str, tuple[TargetInfo, ...]]:
    """Give what living workers say of each target: one thing, where their settings are the same.

    Of at most as many targets as one worker has, and at most a few things of each.
    """
    found: dict[str, dict[TargetInfo, None]] = {}
    for worker in workers:
        for target in () if is_silent(worker, now) else worker.announcement.targets:
            found.setdefault(target.name, {})[target] = None
    return {name: tuple(told)[:_MOST_SAID] for name, told in [*found.items()][:MOST_TARGETS]}


def _rule_line(rule: Rule) -> _RuleLine:
    conditions = (
        ("Modality", rule.modality),
        ("SOP class", rule.sop_class),
        ("Body part", rule.body_part),
        ("View", rule.view),
        ("Sent by", rule.calling_aet),
        ("Station", rule.station),
    )
    return _RuleLine(
        rule.name,
        tuple(f"{name} {' or '.join(sorted(words))}" for name, words in conditions if words),
        tuple(sorted(rule.targets)),
        rule.priority.name.lower(),
        rule.queue,
    )


def target_lines(overview: Overview, ledger: Ledger, visit: Visit) -> Iterator[TargetLine]:
    """Give how each target is doing that rules, workers or waiting studies name."""
    names = {name for rule in overview.rules for name in rule.targets}
    names |= {name for ways in ledger.waiting_by_targets() for name in ways}
    told = targets_told(overview.workers, visit.at)
    names |= told.keys()
    if not names:
        return
    pauses: tuple[Pause, ...] = overview.pauses
    defaults = {name for name, infos in told.items() if any(info.default for info in infos)}
    for health in ledger.target_health(sorted(names), defaults):
        default = health.name in defaults
        named = any(health.name in rule.targets for rule in overview.rules)
        yield TargetLine(
            health,
            tuple(
                rule.name
                for rule in overview.rules
                if health.name in rule.targets or (default and not rule.targets)
            ),
            # What names none is all that goes to a default target that no rule names.
            paused=holds(pauses, (health.name,)) or (default and not named and holds(pauses, ())),
            exported="" if health.exported is None else ago(health.exported, visit.at),
            failed="" if health.failed is None else ago(health.failed, visit.at),
            told=told.get(health.name, ()),
            default=default,
        )


def _result(outcomes: Sequence[Outcome], sets: int) -> _Result:
    columns = ("did happen", "under the rules in force", "under the proposed rules")[: 1 + sets]
    rows = [(one.study.way, *one.ways) for one in outcomes]
    counted = [count_ways(row[place] for row in rows) for place in range(len(columns))]
    known = {way for count in counted for way in count}
    taken = sorted(way for way in known if isinstance(way, tuple))
    kinds = (*taken, *(way for way in (False, None) if way in known))
    return _Result(
        columns,
        studies=len(outcomes),
        unknown=sum(None in row for row in rows),
        counts=tuple(
            _Count(_kind(kind), tuple(count[kind] for count in counted)) for kind in kinds
        ),
        others=tuple(
            _Study(one.study.job_id, tuple(map(_told, row)))
            for one, row in zip(outcomes, rows, strict=True)
            if one.differs
        ),
    )


def _kind(way: tuple[str, ...] | bool | None) -> str:
    if way is None:
        return "not known"
    if isinstance(way, tuple):
        return f"taken in for {' and '.join(way)}" if way else "taken in for no named target"
    return "not taken in"


def _told(way: Decision | None) -> str:
    if way is None:
        return _kind(None)
    if way.reason is not None:
        return f"{_kind(False)}: {way.reason.sentence}"
    told = way.priority not in (Rank.NORMAL, Rank.WITHDRAWAL)
    more = [way.priority.name.lower()] if told else []
    more += [f"queue {way.queue}"] if way.queue else []
    return ", ".join([_kind(way.targets), *more])
