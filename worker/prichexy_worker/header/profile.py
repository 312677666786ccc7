"""What a project asks for beyond the Basic Profile: options, pseudonyms of its own, extra rules."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prichexy_worker.errors import Misconfigured
from prichexy_worker.header import table
from prichexy_worker.header.allowlist import (
    AccessionNumber,
    Codes,
    EachOf,
    Empty,
    Fixed,
    Pattern,
    Range,
    Rule,
    Values,
    allow_lists,
    parse_rule,
    under_the_table,
)
from prichexy_worker.header.elements import name
from prichexy_worker.header.options import Option
from prichexy_worker.pseudonyms import Pseudonyms

__all__ = ["BASIC", "REMOVE", "Profile", "project_rule"]

#: What a project writes in place of a rule for an attribute that it does not want.
REMOVE: Final = "remove"
#: What a project may ask for an attribute: no text of the source is kept by its own rule.
_OF_PROJECTS: Final = (Empty, Fixed, AccessionNumber, Values, EachOf, Pattern, Range, Codes)
#: Where its own values may stand: codes, numbers and coded items.
_VRS: Final = frozenset({"CS", "DS", "FD", "FL", "IS", "SL", "SQ", "SS", "UL", "US", "US or SS"})
#: Without them a result is no object, or its pixels mean nothing.
_NEEDED: Final = frozenset(
    {
        0x00080016,  # SOPClassUID
        0x00080018,  # SOPInstanceUID
        0x00080060,  # Modality
        0x00100010,  # PatientName
        0x00100020,  # PatientID
        0x0020000D,  # StudyInstanceUID
        0x0020000E,  # SeriesInstanceUID
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """What is kept of a header, and under which pseudonyms.

    ``lists`` are the rules by SOP Class UID. ``digest`` names the whole: two profiles with one
    digest do the same. ``project`` "" has the pseudonyms of the key itself.
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
        own = {key: project_rule(key, value, chosen) for key, value in changes.items()}
        removed = {_tag(key) for key, rule in own.items() if rule is None}
        instead = {rule.tag: rule for rule in own.values() if rule is not None}
        lists = {}
        for sop_class, rules in allow_lists(chosen).items():
            kept = {rule.tag: rule for rule in rules if rule.tag not in removed} | instead
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
        return uid if Option.UIDS in self.options and uid else pseudonyms.uid(uid)


def project_rule(keyword: str, value: Any, options: frozenset[Option]) -> Rule | None:
    """Give the rule that a project writes for an attribute, or None where it removes it.

    Raises Misconfigured, naming the attribute, where it is unknown, where the object needs it,
    where the rule would keep text of the source, or where Table E.1-1 does not leave that much.
    """
    tag = _tag(keyword)
    if tag in _NEEDED or tag >> 16 == 0x0028:
        raise Misconfigured(f"{keyword}: no object can be without it as it is; leave it out here")
    if value == REMOVE:
        return None
    rule = parse_rule(keyword, value, options)
    if not isinstance(rule.keep, _OF_PROJECTS):
        raise Misconfigured(f"{keyword}: a project may not ask for this")
    if not isinstance(rule.keep, Empty | AccessionNumber) and rule.vr not in _VRS:
        raise Misconfigured(f"{keyword}: text (VR {rule.vr}) is never kept by a project's own rule")
    if under_the_table(rule, options) != rule:
        action = table.action(rule.tag)
        raise Misconfigured(f"{keyword}: Table E.1-1 has {action} for {name(rule.tag)}")
    return rule


def _tag(keyword: str) -> int:
    return parse_rule(keyword, "emptied").tag


#: The Basic Profile without any option.
BASIC: Final = Profile.made_of("basic")
