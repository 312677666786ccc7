"""What a project asks for beyond the Basic Profile: options, pseudonyms of its own, extra rules."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from prichexy_worker.errors import Misconfigured
from prichexy_worker.header import table
from prichexy_worker.header.allowlist import (
    AccessionNumber,
    Codes,
    EachOf,
    Empty,
    Range,
    Rule,
    Values,
    allow_lists,
    parse_rule,
    under_the_table,
)
from prichexy_worker.header.elements import name
from prichexy_worker.header.options import Option
from prichexy_worker.header.uids import may_stay
from prichexy_worker.pseudonyms import Pseudonyms

__all__ = ["BASIC", "REMOVE", "Profile", "project_rule"]

#: What a project writes in place of a rule for an attribute that it does not want.
REMOVE: Final = "remove"
#: What a project may ask for an attribute: no text of the source is kept by its own rule.
_OF_PROJECTS: Final = (Empty, AccessionNumber, Values, EachOf, Range, Codes)
_NUMBERS: Final = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "UL", "US", "US or SS"})
#: Where its own values may stand: codes, numbers and coded items, never text.
_VRS: Final[Mapping[type, frozenset[str]]] = {
    Values: frozenset({"CS", "DS", "IS"}),
    EachOf: frozenset({"CS", "DS", "IS"}),
    Range: _NUMBERS,
    Codes: frozenset({"SQ"}),
}
_MAY_BE_KEPT: Final = frozenset().union(*_VRS.values())
#: Commands, file meta information, and what describes the pixels.
_GROUPS: Final = frozenset({0x0000, 0x0002, 0x0004, 0x0006, 0x0028})
_ACCESSION_NUMBER: Final = 0x00080050
#: Without them a result is no object or says nothing of itself, or its pixels mean nothing.
_NEEDED: Final = frozenset(
    {
        0x00080005,  # SpecificCharacterSet
        0x00080016,  # SOPClassUID
        0x00080018,  # SOPInstanceUID
        0x00080060,  # Modality
        0x00082111,  # DerivationDescription
        0x00100010,  # PatientName
        0x00100020,  # PatientID
        0x00120062,  # PatientIdentityRemoved
        0x00120063,  # DeidentificationMethod
        0x00120064,  # DeidentificationMethodCodeSequence
        0x0018A001,  # ContributingEquipmentSequence
        0x0020000D,  # StudyInstanceUID
        0x0020000E,  # SeriesInstanceUID
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """What is kept of a header, and under which pseudonyms.

    ``lists`` are the rules by SOP Class UID. ``digest`` names what the project asked for: two
    profiles with one digest do the same, under one version of this software. ``project`` "" has
    the pseudonyms of the key itself.
    """

    name: str
    options: frozenset[Option]
    lists: Mapping[str, tuple[Rule, ...]]
    digest: str
    project: str = ""
    patient_prefix: str = "PX-"

    @classmethod
    def made_of(
        cls,
        name: str,
        options: Iterable[Option] = (),
        attributes: Mapping[str, Any] | None = None,
        *,
        project: str = "",
        patient_prefix: str = "PX-",
        besides: str = "",
    ) -> Profile:
        """Make a profile of what its file says; ``besides`` is what else of it the digest covers.

        Raises Misconfigured, naming the attribute, for a rule that ``project_rule`` refuses.
        """
        chosen, changes = frozenset(options), dict(attributes or {})
        if {Option.UIDS, Option.MODIFIED_DATES} <= chosen:
            raise Misconfigured(
                "uids and modified-dates: a UID may tell when it was made; keep one"
            )
        own = {key: project_rule(key, value, chosen) for key, value in changes.items()}
        removed = {_tag(key) for key, rule in own.items() if rule is None}
        instead = {rule.tag: rule for rule in own.values() if rule is not None}
        lists = {}
        for sop_class, rules in allow_lists(chosen).items():
            kept = {rule.tag: rule for rule in rules if rule.tag not in removed}
            for tag, rule in instead.items():
                kept[tag] = _as_present_as(kept.get(tag), rule)
            lists[sop_class] = tuple(kept[tag] for tag in sorted(kept))
        content = [sorted(chosen), changes, project, patient_prefix, besides, table.TABLE_SHA256]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return cls(name, chosen, lists, digest, project, patient_prefix)

    def to_json(self) -> dict[str, object]:
        """Give what names the profile in reports."""
        return {
            "name": self.name,
            "digest": self.digest,
            "options": sorted(self.options),
            "project": self.project,
            "table": table.TABLE_EDITION,
        }

    def pseudonyms(self, key: Pseudonyms) -> Pseudonyms:
        """Give the pseudonyms of this profile's project under ``key``."""
        return key.of_project(self.project, self.patient_prefix)

    def study_uid(self, pseudonyms: Pseudonyms, uid: str) -> str:
        """Give the StudyInstanceUID that a study has in the results. Raises ValueError for ""."""
        stays = Option.UIDS in self.options and may_stay(uid.strip(" \0"))
        return uid.strip(" \0") if stays else pseudonyms.uid(uid)


def project_rule(keyword: str, value: Any, options: frozenset[Option]) -> Rule | None:
    """Give the rule that a project writes for an attribute, or None where it removes it.

    Raises Misconfigured, naming the attribute, where it is unknown, where the object needs it,
    where the rule would keep text of the source, or where Table E.1-1 does not leave that much.
    """
    tag = _tag(keyword)
    if tag in _NEEDED or tag >> 16 in _GROUPS:
        raise Misconfigured(f"{keyword}: no object can be without it as it is; leave it out here")
    if value == REMOVE:
        if tag in _required():
            raise Misconfigured(f"{keyword}: some objects must have it; it is empty there at least")
        return None
    if not isinstance(value, str) and not (isinstance(value, dict) and len(value) == 1):
        raise Misconfigured(f"{keyword}: {REMOVE}, or one rule such as {{values: [CHEST]}}")
    rule = parse_rule(keyword, value, options)
    if isinstance(rule.keep, AccessionNumber) and tag != _ACCESSION_NUMBER:
        raise Misconfigured(f"{keyword}: accession_number is for AccessionNumber")
    if not isinstance(rule.keep, _OF_PROJECTS):
        raise Misconfigured(f"{keyword}: a project may not ask for this")
    if not isinstance(rule.keep, Empty | AccessionNumber):
        if rule.vr not in _MAY_BE_KEPT:
            raise Misconfigured(
                f"{keyword}: text (VR {rule.vr}) is never kept by a project's own rule"
            )
        if rule.vr not in _VRS[type(rule.keep)]:
            raise Misconfigured(f"{keyword}: this rule is none for its VR {rule.vr}")
    if rule.keep == Empty(always=False) and tag in _with_a_value():
        raise Misconfigured(f"{keyword}: some objects must have a value there")
    if under_the_table(rule, options) != rule:
        action = table.action(rule.tag)
        raise Misconfigured(f"{keyword}: Table E.1-1 has {action} for {name(rule.tag)}")
    return rule


@cache
def _required() -> frozenset[int]:
    """Give what some object has, with a value or without, whatever its source has."""
    rules = (rule for rules in allow_lists().values() for rule in rules)
    return frozenset(rule.tag for rule in rules if rule.required is not None or _always(rule))


@cache
def _with_a_value() -> frozenset[int]:
    """Give what some object has with a value, whatever its source has (Type 1)."""
    return frozenset(
        rule.tag for rules in allow_lists().values() for rule in rules if rule.required
    )


def _as_present_as(listed: Rule | None, rule: Rule) -> Rule:
    """Give a project's ``rule`` so that the attribute is as present as by the list's (Type 2)."""
    if listed is None:
        return rule
    required = "" if _always(listed) else listed.required
    if isinstance(rule.keep, Empty) and required is not None:
        return replace(rule, keep=Empty(always=True))
    return replace(rule, otherwise=listed.otherwise, required=required, blank=listed.blank)


def _always(rule: Rule) -> bool:
    return isinstance(rule.keep, Empty) and rule.keep.always


def _tag(keyword: str) -> int:
    return parse_rule(keyword, "emptied").tag


#: The Basic Profile without any option.
BASIC: Final = Profile.made_of("basic")
