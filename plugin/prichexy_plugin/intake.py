"""Which studies are taken in. Pure: facts and rules in, a decision out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prichexy_worker.contract import Reason

__all__ = ["Decision", "InstanceFacts", "Rule", "decide", "facts_of", "may_match"]

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
    """Takes in an instance that fits every list that is not empty. Values are in upper case."""

    name: str
    modality: frozenset[str] = frozenset()
    sop_class: frozenset[str] = frozenset()
    body_part: frozenset[str] = frozenset()
    view: frozenset[str] = frozenset()
    calling_aet: frozenset[str] = frozenset()
    station: frozenset[str] = frozenset()

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
    """Whether a study is taken in; ``reason`` is None exactly when it is."""

    reason: Reason | None

    @property
    def taken(self) -> bool:
        """Say whether the study goes on to the workers."""
        return self.reason is None


def decide(instances: Iterable[InstanceFacts], rules: Iterable[Rule], *, copy: bool) -> Decision:
    """Decide over a study by its instances; ``copy`` says that Orthanc made it from another one.

    One instance that fits one rule takes the whole study in: what a study holds beside it is for
    the worker to judge, which releases a study whole or not at all. One instance among
    ``instances`` that this gateway made turns the whole study away. The caller chooses which ones
    to read; this gateway puts what it makes into series of its own, so one of each series is
    enough to tell.
    """
    if copy:
        return Decision(Reason.COPY_OF_A_STUDY)
    rules = tuple(rules)
    taken = False
    for facts in instances:
        if facts.own_output:
            return Decision(Reason.OWN_OUTPUT)
        taken = taken or any(rule.matches(facts) for rule in rules)
    return Decision(None if taken else Reason.NO_RULE_MATCHES)


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
