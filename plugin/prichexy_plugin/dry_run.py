"""What would have happened to studies under other intake rules. Nothing is stored or changed.

Orthanc is asked about each study as it is now. So the answer is not always what would have been
said then: a study may have grown, and of one whose originals are gone nothing is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from prichexy_plugin.changes import INSPECTED_INSTANCES
from prichexy_plugin.flow import Decided
from prichexy_plugin.intake import (
    Decision,
    InstanceFacts,
    Rank,
    Rule,
    decide,
    is_settled,
    may_match,
)
from prichexy_plugin.studies import Studies, StudiesUnavailable, Study, Unreadable

__all__ = ["MOST_READ", "MOST_STUDIES", "Outcome", "count_ways", "try_rules"]

#: So many studies are tried, and so many objects of all of them read together. Each object is two
#: questions to Orthanc, each study two more.
MOST_STUDIES: Final = 100
MOST_READ: Final = 400


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to a study, and what each set of rules says; None stands for "not known"."""

    study: Decided
    ways: tuple[Decision | None, ...]

    @property
    def differs(self) -> bool:
        """Say whether a set of rules sends it another way than it went, as far as is known."""
        went = self.study.way
        return went is not None and any(way is not None and _differ(went, way) for way in self.ways)


def try_rules(
    studies: Studies, decided: Iterable[Decided], sets: Sequence[tuple[Rule, ...]]
) -> tuple[Outcome, ...]:
    """Say what each of ``sets`` would do with each study, in their order.

    At most ``MOST_READ`` objects are read; of the studies after that nothing is known, nor when
    Orthanc ceases to answer. Raises nothing.
    """
    outcomes = []
    left, answers = MOST_READ, True
    for one in decided:
        ways: tuple[Decision | None, ...] = (None,) * len(sets)
        if answers and left > 0:
            try:
                study = studies.study(one.study_id)
                facts = None if study is None else _facts_of(studies, study, sets, left)
            except Unreadable:
                study, facts = None, None
            except StudiesUnavailable:
                study, facts, answers = None, None, False
            if study is not None and facts is not None:
                left -= len(facts)
                ways = tuple(_decide(one, study, facts, rules) for rules in sets)
            elif study is not None:
                left = 0
        outcomes.append(Outcome(one, ways))
    return tuple(outcomes)


def count_ways(ways: Iterable[Decision | None]) -> Counter[tuple[str, ...] | bool | None]:
    """Count the ways by their targets; False for not taken in, None for not known."""
    return Counter(None if way is None else way.targets if way.taken else False for way in ways)


def _facts_of(
    studies: Studies, study: Study, sets: Sequence[tuple[Rule, ...]], most: int
) -> list[tuple[str, InstanceFacts]] | None:
    """Read as many objects as all ``sets`` want, each with its series' modality.

    As the watcher reads them. None when there are more than ``most``.
    """
    series = [one for one in study.series if any(may_match(rules, one.modality) for rules in sets)]
    firsts = [(one.modality, one.instances[0]) for one in series if one.instances]
    rest = [(one.modality, instance) for one in series for instance in one.instances[1:]]
    found: list[tuple[str, InstanceFacts]] = []
    fitting: list[set[Rule]] = [set() for _ in sets]
    for place, (modality, instance) in enumerate((firsts + rest)[:INSPECTED_INSTANCES]):
        if place >= len(firsts) and all(map(is_settled, sets, fitting)):
            break
        if len(found) >= most:
            return None
        facts = studies.facts(instance)
        if facts is not None:
            found.append((modality, facts))
            for rules, fits in zip(sets, fitting, strict=True):
                fits.update(rule for rule in rules if rule.matches(facts))
    return found


def _decide(
    one: Decided, study: Study, facts: list[tuple[str, InstanceFacts]], rules: tuple[Rule, ...]
) -> Decision:
    seen = [fact for modality, fact in facts if may_match(rules, modality)]
    decision = decide(seen, rules, copy=study.copy)
    return replace(decision, priority=Rank.LOW) if one.backfilled else decision


def _differ(went: Decision, way: Decision) -> bool:
    if went.taken and went.priority is Rank.WITHDRAWAL:
        way = replace(way, priority=went.priority)
    return _way(way) != _way(went)


def _way(decision: Decision) -> tuple[object, ...]:
    """Give what is compared: of one that is not taken in nothing more than that."""
    if not decision.taken:
        return ()
    return decision.targets, decision.priority, decision.queue
