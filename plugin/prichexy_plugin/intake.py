"""Which studies are taken in. Pure: facts and rules in, a decision out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from prichexy_worker.contract import Reason

__all__ = [
    "PRIORITIES",
    "Decision",
    "InstanceFacts",
    "Rank",
    "Rule",
    "decide",
    "facts_of",
    "is_settled",
    "may_match",
    "stream_of",
    "targets_of",
]

#: (code, scheme) of the chest in SNOMED CT, now and before 2020, and in its two older forms: the
#: same as the worker accepts (``tests/contract/test_chest_codes.py``).
_CHEST_CODES: Final = frozenset(
    {
        ("816094009", "SCT"),
        ("51185008", "SCT"),
        ("T-D3000", "SRT"),
        ("T-D3000", "SNM3"),
    }
)
#: What the gateway writes into everything it makes.
_OWN_NAME: Final = "prichexy"


class Rank(IntEnum):
    """Which studies that wait go first; all of a smaller number go before those of a larger one."""

    WITHDRAWAL = -1  # an export that somebody has taken back; no rule has it
    URGENT = 0
    NORMAL = 1
    LOW = 2  # also what a backfill brought


#: Those that a rule may have.
PRIORITIES: Final = (Rank.URGENT, Rank.NORMAL, Rank.LOW)


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """What the rules look at. All texts are stripped and in upper case; absent ones are empty."""

    modality: str = ""
    sop_class: str = ""
    body_parts: frozenset[str] = frozenset()
    view: str = ""
    calling_aet: str = ""
    station: str = ""
    own_output: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """Takes in an instance that fits every list that is not empty. Values are in upper case.

    ``targets``, ``priority`` and ``queue`` are not compared: they say of the studies that it takes
    in which export targets they go to, how urgent they are, and which workers get them; a blank
    queue is the gateway's own.
    """

    name: str
    modality: frozenset[str] = frozenset()
    sop_class: frozenset[str] = frozenset()
    body_part: frozenset[str] = frozenset()
    view: frozenset[str] = frozenset()
    calling_aet: frozenset[str] = frozenset()
    station: frozenset[str] = frozenset()
    targets: frozenset[str] = frozenset()
    priority: Rank = Rank.NORMAL
    queue: str = ""

    def matches(self, facts: InstanceFacts) -> bool:
        """Say whether ``facts`` fit every list that is not empty."""
        return (
            _fits(self.modality, facts.modality)
            and _fits(self.sop_class, facts.sop_class)
            and (not self.body_part or not self.body_part.isdisjoint(facts.body_parts))
            and _fits(self.view, facts.view)
            and _fits(self.calling_aet, facts.calling_aet)
            and _fits(self.station, facts.station)
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a study is taken in; ``reason`` is None exactly when it is.

    ``targets`` are the names, sorted, of the export targets it goes to; none means those that the
    workers' settings have for such studies. ``source`` is the application entity title that sent
    it, blank when none did. ``rule`` names the first of the rules, in their order, that an instance
    was seen to fit; instances are read only until no more of them would change anything else.
    """

    reason: Reason | None
    targets: tuple[str, ...] = ()
    priority: Rank = Rank.NORMAL
    queue: str = ""
    source: str = ""
    rule: str = field(default="", compare=False)

    @property
    def taken(self) -> bool:
        """Say whether the study goes on to the workers."""
        return self.reason is None


def decide(instances: Iterable[InstanceFacts], rules: Iterable[Rule], *, copy: bool) -> Decision:
    """Decide over a study by its instances; ``copy`` says that Orthanc made it from another one.

    One instance that fits one rule takes the whole study in: what a study holds beside it is for
    the worker to judge, which releases a study whole or not at all. It goes to the targets of every
    rule that one of its instances fits, is as urgent as the most urgent of them says, and gets the
    queue of the first of them, in the order of ``rules``, that names one. One instance among
    ``instances`` that this gateway made turns the whole study away. The caller chooses which ones
    to read; this gateway puts what it makes into series of its own, so one of each series is
    enough to tell.
    """
    if copy:
        return Decision(Reason.COPY_OF_A_STUDY)
    rules = tuple(rules)
    fitting: set[Rule] = set()
    source = ""
    for facts in instances:
        if facts.own_output:
            return Decision(Reason.OWN_OUTPUT)
        fitting.update(rule for rule in rules if rule.matches(facts))
        source = source or facts.calling_aet
    if not fitting:
        return Decision(Reason.NO_RULE_MATCHES)
    return _taken(rules, fitting, source)


def is_settled(rules: Iterable[Rule], fitting: Collection[Rule]) -> bool:
    """Say whether no further instance changes the decision, but for one of this gateway's own.

    ``fitting`` are those of ``rules`` that an instance fits which was read already.
    """
    rules = tuple(rules)
    # More rules only add targets, make it more urgent, or put an earlier rule's queue first.
    return bool(fitting) and _taken(rules, fitting) == _taken(rules, rules)


def stream_of(targets: Iterable[str], source: str) -> str:
    """Give one text for where a study goes to and who sent it; ``targets_of`` reads it."""
    return f"{','.join(sorted(targets))}|{source}"


def targets_of(stream: str) -> tuple[str, ...]:
    """Give the targets of all studies of a stream."""
    return tuple(name for name in stream.partition("|")[0].split(",") if name)


def may_match(rules: Iterable[Rule], modality: str) -> bool:
    """Say whether a series of ``modality`` can fit a rule, so that its instances need reading."""
    return any(_fits(rule.modality, _text(modality)) for rule in rules)


def facts_of(tags: Mapping[str, Any], calling_aet: str) -> InstanceFacts:
    """Read the facts from Orthanc's ``simplified-tags`` and the AET that sent the instance."""
    body_parts = {_text(tags.get("BodyPartExamined"))}
    for item in _items(tags, "AnatomicRegionSequence"):
        if (_code(item, "CodeValue"), _code(item, "CodingSchemeDesignator")) in _CHEST_CODES:
            body_parts.add("CHEST")
    return InstanceFacts(
        modality=_text(tags.get("Modality")),
        sop_class=_text(tags.get("SOPClassUID")),
        body_parts=frozenset(body_parts - {""}),
        view=_text(tags.get("ViewPosition")),
        calling_aet=_text(calling_aet),
        station=_text(tags.get("StationName")),
        own_output=_is_own(tags),
    )


def _is_own(tags: Mapping[str, Any]) -> bool:
    texts = [tags.get("DeidentificationMethod")]
    for item in _items(tags, "ContributingEquipmentSequence"):
        texts += [item.get("Manufacturer"), item.get("ManufacturerModelName")]
    return any(isinstance(text, str) and _OWN_NAME in text.lower() for text in texts)


def _taken(rules: Iterable[Rule], fitting: Collection[Rule], source: str = "") -> Decision:
    return Decision(
        None,
        targets=tuple(sorted({name for rule in fitting for name in rule.targets})),
        priority=min(rule.priority for rule in fitting),
        queue=next((rule.queue for rule in rules if rule.queue and rule in fitting), ""),
        source=source,
        rule=next((rule.name for rule in rules if rule in fitting), ""),
    )


def _fits(wanted: frozenset[str], value: str) -> bool:
    return not wanted or value in wanted


def _text(value: object) -> str:
    return value.strip(" \x00").upper() if isinstance(value, str) else ""


def _code(item: Mapping[str, Any], keyword: str) -> str:
    """Give a part of a code as it stands: case makes a difference there."""
    value = item.get(keyword)
    return value.strip(" \x00") if isinstance(value, str) else ""


def _items(tags: Mapping[str, Any], keyword: str) -> list[Mapping[str, Any]]:
    value = tags.get(keyword)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
