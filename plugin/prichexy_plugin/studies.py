"""What the plugin asks Orthanc about studies, as a port, and Orthanc's own REST API behind it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from prichexy_plugin.events import moment_of
from prichexy_plugin.host import Host
from prichexy_plugin.intake import InstanceFacts, facts_of

__all__ = [
    "ChangePage",
    "Listed",
    "OrthancStudies",
    "Series",
    "Studies",
    "StudiesUnavailable",
    "Study",
    "Unreadable",
    "content_of",
    "digests_of",
]


class StudiesUnavailable(Exception):
    """Orthanc did not answer as it should, for instance because it is stopping: ask again."""


class Unreadable(Exception):
    """Orthanc answers, but not about this one object: its file is missing, or its JSON broken."""


@dataclass(frozen=True, slots=True)
class Series:
    """A series' modality as stored and its instances' Orthanc ids."""

    modality: str
    instances: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Study:
    """A study as Orthanc has it now.

    ``copy`` says that Orthanc made it from another study. ``last_update`` is when the last
    instance came, to the second, None when Orthanc does not say.
    """

    stable: bool
    last_update: datetime | None
    copy: bool
    series: tuple[Series, ...]

    @property
    def instances(self) -> tuple[str, ...]:
        """Give the ids of all its instances, sorted."""
        return tuple(sorted(one for series in self.series for one in series.instances))


@dataclass(frozen=True, slots=True)
class Listed:
    """A study in Orthanc's list; ``last_update`` as in ``Study``."""

    study_id: str
    last_update: datetime | None


@dataclass(frozen=True, slots=True)
class ChangePage:
    """Some of Orthanc's changes in order.

    ``last`` is the number of the last one on this page; of an empty page, of the last one ever.
    """

    changes: tuple[Mapping[str, Any], ...]
    done: bool
    last: int


class Studies(Protocol):
    """What is asked. None means "no longer there".

    Every method raises StudiesUnavailable; those about one object raise Unreadable, too.
    """

    def changes(self, since: int, limit: int) -> ChangePage:
        """Give the changes after number ``since``."""
        ...

    def last_change(self) -> int:
        """Give the number of the last change ever, 0 when there was none."""
        ...

    def count(self) -> int:
        """Say how many studies there are."""
        ...

    def listed(self, since: int, limit: int) -> tuple[Listed, ...]:
        """Give ``limit`` studies of the list from place ``since``, 0 being the first.

        The order is Orthanc's own. A deletion moves all that stands behind.
        """
        ...

    def study(self, study_id: str) -> Study | None:
        """Look at a study."""
        ...

    def study_of(self, instance_id: str) -> str | None:
        """Name the study that an instance belongs to."""
        ...

    def patients(self, study_id: str) -> int:
        """Say how many patients have this study's StudyInstanceUID; 0 when it is not there."""
        ...

    def facts(self, instance_id: str) -> InstanceFacts | None:
        """Read what the intake rules look at."""
        ...

    def digest(self, instance_id: str) -> str | None:
        """Give what tells the instance as stored from another file in its place; never blank.

        Its MD5; where Orthanc keeps none (StoreMD5ForAttachments), a digest of its size and of the
        second in which it came.
        """
        ...

    def delete_instance(self, instance_id: str) -> None:
        """Delete this one instance, as a whole; it is no error if it is not there.

        Raises Unreadable when Orthanc works and does not delete it.
        """
        ...


class OrthancStudies:
    """Asks the Orthanc that this runs in.

    Its calls hold Python's lock in plugin 4.0, so each is a short one: none reads pixel data, none
    starts a job.
    """

    def __init__(self, orthanc: Host) -> None:
        self._orthanc = orthanc
        codes = orthanc.ErrorCode
        self._absent = (int(codes.UNKNOWN_RESOURCE), int(codes.INEXISTENT_ITEM))

    def changes(self, since: int, limit: int) -> ChangePage:
        """Give the changes after number ``since``."""
        answer = self._require(f"/changes?since={since}&limit={limit}")
        return ChangePage(
            changes=tuple(answer["Changes"]), done=answer["Done"], last=answer["Last"]
        )

    def last_change(self) -> int:
        """Give the number of the last change ever, 0 when there was none."""
        return int(self._require("/changes?last")["Last"])

    def count(self) -> int:
        """Say how many studies there are."""
        return int(self._require("/statistics")["CountStudies"])

    def listed(self, since: int, limit: int) -> tuple[Listed, ...]:
        """Give ``limit`` studies of the list from place ``since``, 0 being the first."""
        found = self._require(f"/studies?since={since}&limit={limit}&expand")
        return tuple(Listed(one["ID"], moment_of(one.get("LastUpdate"))) for one in found)

    def study(self, study_id: str) -> Study | None:
        """Look at a study."""
        study = self._json(f"/studies/{study_id}")
        series = self._json(f"/studies/{study_id}/series")
        if study is None or series is None:
            return None
        with _readable():
            return Study(
                stable=study["IsStable"],
                last_update=moment_of(study.get("LastUpdate")),
                copy="AnonymizedFrom" in study or "ModifiedFrom" in study,
                series=tuple(
                    Series(
                        modality=one["MainDicomTags"].get("Modality", ""),
                        instances=tuple(one["Instances"]),
                    )
                    for one in series
                ),
            )

    def study_of(self, instance_id: str) -> str | None:
        """Name the study that an instance belongs to."""
        study = self._json(f"/instances/{instance_id}/study")
        with _readable():
            return None if study is None else str(study["ID"])

    def patients(self, study_id: str) -> int:
        """Say how many patients have this study's StudyInstanceUID; 0 when it is not there."""
        study = self._json(f"/studies/{study_id}")
        if study is None:
            return 0
        with _readable():
            study_uid = str(study["MainDicomTags"]["StudyInstanceUID"]).strip(" \0")
        try:
            found = json.loads(self._orthanc.RestApiPost("/tools/lookup", study_uid.encode()))
        except (self._orthanc.OrthancException, ValueError) as error:
            raise StudiesUnavailable from error
        with _readable():
            return len({study_id, *(one["ID"] for one in found if one["Type"] == "Study")})

    def facts(self, instance_id: str) -> InstanceFacts | None:
        """Read what the intake rules look at."""
        tags = self._json(f"/instances/{instance_id}/simplified-tags")
        metadata = self._json(f"/instances/{instance_id}/metadata?expand")
        if tags is None or metadata is None:
            return None
        with _readable():
            return facts_of(tags, calling_aet=metadata.get("RemoteAET", ""))

    def digest(self, instance_id: str) -> str | None:
        """Give what tells the instance as stored from another file in its place; never blank."""
        answer = self._get(f"/instances/{instance_id}/attachments/dicom/md5")
        if answer:
            with _readable():
                return answer.decode("ascii").strip()
        size = self._get(f"/instances/{instance_id}/attachments/dicom/size")
        came = self._get(f"/instances/{instance_id}/metadata/ReceptionDate")
        if size and came:
            return hashlib.sha256(b"%b %b" % (size.strip(), came.strip())).hexdigest()
        if self._get(f"/instances/{instance_id}") is None:
            return None
        raise Unreadable

    def delete_instance(self, instance_id: str) -> None:
        """Delete this one instance, as a whole; it is no error if it is not there."""
        try:
            self._orthanc.RestApiDelete(f"/instances/{instance_id}")
        except self._orthanc.OrthancException as error:
            if not error.args or error.args[0] not in self._absent:
                self.last_change()
                raise Unreadable from error

    def _get(self, path: str) -> bytes | None:
        """Ask about one object. After an error Orthanc's database is asked for a sign of life."""
        try:
            return self._orthanc.RestApiGet(path)
        except self._orthanc.OrthancException as error:
            if error.args and error.args[0] in self._absent:
                return None
            self.last_change()
            raise Unreadable from error

    def _json(self, path: str) -> Any:
        answer = self._get(path)
        with _readable():
            return None if answer is None else json.loads(answer)

    def _require(self, path: str) -> Any:
        """Ask what Orthanc answers whenever it works at all."""
        try:
            return json.loads(self._orthanc.RestApiGet(path))
        except (self._orthanc.OrthancException, ValueError) as error:
            raise StudiesUnavailable from error


def digests_of(studies: Studies, instances: Iterable[str]) -> dict[str, str]:
    """Give the digest of each instance; those that are no longer there are left out.

    Raises StudiesUnavailable, Unreadable.
    """
    found = ((instance, studies.digest(instance)) for instance in instances)
    return {instance: digest for instance, digest in found if digest is not None}


def content_of(digests: Mapping[str, str]) -> str:
    """Give a digest of what a study holds, by its instances' digests."""
    digest = hashlib.sha256()
    for instance in sorted(digests):
        digest.update(f"{instance} {digests[instance]}\n".encode())
    return digest.hexdigest()


@contextmanager
def _readable() -> Iterator[None]:
    """Turn what an answer of an odd form raises into Unreadable; its text may hold a value."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable from error
