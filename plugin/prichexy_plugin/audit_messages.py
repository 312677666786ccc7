"""A line of the audit trail as a DICOM audit message (PS3.15 A.5). Pure.

Only opaque names leave: the study is a UID made of its random job id (PS3.5 B.2), the same in all
messages of that study and unrelated to its StudyInstanceUID; the patient is "withheld". Each
message names the line that it is, with its digest, so that the server's copy shows what the trail
was (``chain.heads_in`` finds it there).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Final
from xml.etree import ElementTree as ET

from prichexy_plugin.chain import PERSON, PLUGIN, Deed, Line
from prichexy_worker.contract import State

__all__ = ["AuditMessage", "Source", "message_of", "study_uid"]

_WITHHELD: Final = "withheld"
#: For codes that DICOM has none of.
_OWN_SCHEME: Final = "99PRICHEXY"
#: PS3.15 A.5.1, EventOutcomeIndicator.
_SUCCESS, _MINOR, _SERIOUS = "0", "4", "8"
#: PS3.16 CID 400, 401 and 402, and others that PS3.15 A.5.3 names.
_CODES: Final[Mapping[str, str]] = {
    "110100": "Application Activity",
    "110103": "DICOM Instances Accessed",
    "110105": "DICOM Study Deleted",
    "110106": "Export",
    "110113": "Security Alert",
    "110120": "Application Start",
    "110121": "Application Stop",
    "110129": "Security Configuration",
    "110131": "Software Configuration",
    "110132": "Use of Restricted Function",
    "110150": "Application",
    "110153": "Source Role ID",
    "110154": "Destination Media",
    "110037": "URI",
    "110180": "Study Instance UID",
}


@dataclass(frozen=True, slots=True)
class Source:
    """Who reports (AuditSourceIdentification): ``site`` may be blank."""

    source_id: str
    site: str = ""


@dataclass(frozen=True, slots=True)
class AuditMessage:
    """One message; ``outcome`` is its EventOutcomeIndicator."""

    line: Line
    outcome: str
    xml: str


def study_uid(job_id: str) -> str:
    """Give the UID that stands for a study in messages."""
    return f"2.25.{int(job_id, 16)}"


def message_of(line: Line, source: Source) -> AuditMessage | None:
    """Give the message of a line, or None for one that DICOM has no message for.

    Those are the steps of a study between its arrival and a worker's claim, what keeps all studies
    waiting, and deletions by a rule before they are done.
    """
    build = _MESSAGES.get(line.deed)
    root = None if build is None else build(line)
    if root is None:
        return None
    attributes = {"AuditSourceID": source.source_id}
    if source.site:
        attributes["AuditEnterpriseSiteID"] = source.site
    reporter = ET.Element("AuditSourceIdentification", attributes)
    # An application server process (PS3.15 A.5.1.2.1).
    ET.SubElement(reporter, "AuditSourceTypeCode", {"csd-code": "4"})
    objects = [child for child in root if child.tag == "ParticipantObjectIdentification"]
    root.insert(len(root) - len(objects), reporter)
    root.append(_line_object(line))
    xml = ET.tostring(root, encoding="unicode")
    outcome = root[0].attrib["EventOutcomeIndicator"]
    return AuditMessage(line, outcome, f'<?xml version="1.0" encoding="UTF-8"?>{xml}')


# --- Messages, by their place in PS3.15 ------------------------------------------------------


def _activity(line: Line) -> ET.Element:
    """Give an Application Activity, A.5.3.1."""
    kind = "110120" if line.deed == Deed.STARTED else "110121"
    root = _event(line, "110100", "E", kinds=(kind,))
    _participant(root, line.actor, requestor=False, role="110150")
    return root


def _step(line: Line) -> ET.Element | None:
    if line.actor.startswith(PERSON):
        return _alert("110132")(line)
    if line.to_state == State.PROCESSING:
        return _accessed(line)
    if line.to_state in (State.EXPORTED, State.QUARANTINED, State.FAILED):
        return _export(line)
    return None


def _accessed(line: Line) -> ET.Element:
    """Give a DICOM Instances Accessed, A.5.3.6."""
    root = _event(line, "110103", "R")
    _participant(root, line.actor, requestor=True)
    _study(root, line, life_cycle="6")
    return root


def _export(line: Line) -> ET.Element:
    """Give a Data Export, A.5.3.4; one that came to no export is a serious failure."""
    done = line.to_state == State.EXPORTED
    root = _event(line, "110106", "R", outcome=_SUCCESS if done else _SERIOUS)
    _participant(root, line.actor, requestor=True, role="110153")
    targets = str(line.details.get("targets", "")) or "default export targets"
    media = _participant(root, targets, requestor=False, role="110154")
    kind = ET.SubElement(ET.SubElement(media, "MediaIdentifier"), "MediaType")
    kind.attrib.update(_coded("110037"))
    _study(root, line, life_cycle="7" if done else "6", anonymized=done)
    return root


def _deleted(line: Line) -> ET.Element | None:
    """Give a DICOM Study Deleted, A.5.3.8; of a part of a study a minor failure."""
    whole = line.deed == Deed.ORIGINALS_DELETED
    if not whole and not line.details.get("deleted"):
        return None
    root = _event(line, "110105", "D", outcome=_SUCCESS if whole else _MINOR)
    _participant(root, line.actor, requestor=True)
    _study(root, line, life_cycle="15")
    return root


def _alert(kind: str) -> Callable[[Line], ET.Element]:
    """Give what makes a Security Alert, A.5.3.11, that informs."""

    def build(line: Line) -> ET.Element:
        root = _event(line, "110113", "E", kinds=(kind,))
        _participant(root, PLUGIN, requestor=True)
        if line.actor != PLUGIN:
            _participant(root, line.actor, requestor=False)
        if line.job_id is not None:
            _study(root, line, life_cycle="6")
        return root

    return build


def _ordered(line: Line) -> ET.Element | None:
    """Give the message of a deletion that a person asked for."""
    return _alert("110132")(line) if line.actor.startswith(PERSON) else None


_MESSAGES: Final[Mapping[str, Callable[[Line], ET.Element | None]]] = {
    Deed.STARTED: _activity,
    Deed.STOPPED: _activity,
    Deed.STEP: _step,
    Deed.PICTURES_SHOWN: _accessed,
    Deed.ORIGINALS_DELETING: _ordered,
    Deed.ORIGINALS_DELETED: _deleted,
    Deed.ORIGINALS_KEPT: _deleted,
    Deed.MODEL_TAKEN_UP: _alert("110131"),
    Deed.MODEL_CHANGED: _alert("110131"),
    Deed.MIGRATED: _alert("110129"),
    Deed.PRUNED: _alert("110129"),
    Deed.RESTORED: _alert("110129"),
    Deed.BACKFILL_STARTED: _alert("110132"),
    Deed.BACKFILL_STOPPED: _alert("110132"),
    Deed.ACTION: _alert("110132"),
}


# --- Parts of a message ------------------------------------------------------------------------


def _coded(code: str) -> dict[str, str]:
    return {"csd-code": code, "codeSystemName": "DCM", "originalText": _CODES[code]}


def _own(code: str, meaning: str) -> dict[str, str]:
    return {"csd-code": code, "codeSystemName": _OWN_SCHEME, "originalText": meaning}


def _event(
    line: Line, code: str, action: str, *, outcome: str = _SUCCESS, kinds: tuple[str, ...] = ()
) -> ET.Element:
    root = ET.Element("AuditMessage")
    at = line.at.astimezone(UTC).isoformat(timespec="milliseconds")
    attributes = {
        "EventActionCode": action,
        "EventDateTime": at.replace("+00:00", "Z"),
        "EventOutcomeIndicator": outcome,
    }
    event = ET.SubElement(root, "EventIdentification", attributes)
    ET.SubElement(event, "EventID", _coded(code))
    for kind in kinds:
        ET.SubElement(event, "EventTypeCode", _coded(kind))
    if line.reason is not None:
        ET.SubElement(event, "EventOutcomeDescription").text = line.reason
    return root


def _participant(
    root: ET.Element, user: str, *, requestor: bool, role: str | None = None
) -> ET.Element:
    attributes = {"UserID": user, "UserIsRequestor": "true" if requestor else "false"}
    participant = ET.SubElement(root, "ActiveParticipant", attributes)
    if role is not None:
        ET.SubElement(participant, "RoleIDCode", _coded(role))
    return participant


def _study(root: ET.Element, line: Line, *, life_cycle: str, anonymized: bool = False) -> None:
    """Add the study and its patient."""
    attributes = {
        "ParticipantObjectID": study_uid(line.job_id or "0"),
        "ParticipantObjectTypeCode": "2",
        "ParticipantObjectTypeCodeRole": "3",
        "ParticipantObjectDataLifeCycle": life_cycle,
    }
    study = ET.SubElement(root, "ParticipantObjectIdentification", attributes)
    ET.SubElement(study, "ParticipantObjectIDTypeCode", _coded("110180"))
    ET.SubElement(study, "ParticipantObjectName").text = f"job {line.job_id}"
    for name in sorted(line.details):
        _detail(study, name, str(line.details[name]))
    description = ET.SubElement(study, "ParticipantObjectDescription")
    # Which SOP class it is of is not known here: PS3.15 A.5.1 lets its UID be left out.
    images = str(line.details.get("instances", line.details.get("originals", 0)))
    ET.SubElement(description, "SOPClass", {"NumberOfInstances": images})
    if anonymized:
        ET.SubElement(description, "Anonymized").text = "true"
    attributes = {
        "ParticipantObjectID": _WITHHELD,
        "ParticipantObjectTypeCode": "1",
        "ParticipantObjectTypeCodeRole": "1",
    }
    patient = ET.SubElement(root, "ParticipantObjectIdentification", attributes)
    number = {"csd-code": "2", "codeSystemName": "RFC-3881", "originalText": "Patient Number"}
    ET.SubElement(patient, "ParticipantObjectIDTypeCode", number)
    ET.SubElement(patient, "ParticipantObjectName").text = _WITHHELD


def _line_object(line: Line) -> ET.Element:
    """Give the object that names the line of the trail."""
    attributes = {
        "ParticipantObjectID": str(line.number),
        "ParticipantObjectTypeCode": "2",
        "ParticipantObjectTypeCodeRole": "13",  # security resource
    }
    found = ET.Element("ParticipantObjectIdentification", attributes)
    ET.SubElement(found, "ParticipantObjectIDTypeCode", _own("line", "Line of the audit trail"))
    ET.SubElement(found, "ParticipantObjectName").text = str(line.head)
    _detail(found, "deed", line.deed)
    if line.job_id is None:
        for name in sorted(line.details):
            _detail(found, name, str(line.details[name]))
    return found


def _detail(parent: ET.Element, kind: str, value: str) -> None:
    encoded = base64.b64encode(value.encode()).decode("ascii")
    ET.SubElement(parent, "ParticipantObjectDetail", {"type": kind, "value": encoded})
