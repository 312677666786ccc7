"""A DICOMweb server as export target: stored by STOW-RS, read back by WADO-RS.

Not through dicomweb-client: it writes a data set anew to send it and gives a data set back, while
here the very bytes are sent that the release gate has judged, and those that came back compared.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx

from prichexy_worker import header
from prichexy_worker.contract import Reason
from prichexy_worker.errors import Retryable
from prichexy_worker.export.multipart import DICOM, pack, unpack
from prichexy_worker.export.putting_back import or_else
from prichexy_worker.export.uids import check_uids
from prichexy_worker.orthanc_client import ask
from prichexy_worker.ports import Anonymized, Check, InstanceName, unhindered
from prichexy_worker.readback import differences, read_back
from prichexy_worker.sent import Image, Sent

__all__ = ["BearerFile", "DicomwebExport"]

_JSON: Final = {"Accept": "application/dicom+json"}
#: Any transfer syntax: the stored one, not one that the server makes of it.
_FILE: Final = {"Accept": f'multipart/related; type="{DICOM}"; transfer-syntax=*'}
#: So many instances are asked for at a time: more than a study of ours has.
_PAGE: Final = 1000

_SOP_CLASS, _SOP_UID = "00080016", "00080018"
_SERIES_UID, _PATIENT_ID, _METHOD = "0020000E", "00100020", "00120063"
_FAILED, _REFERENCED, _REFERENCED_UID = "00081198", "00081199", "00081155"

#: An object of the DICOM JSON Model (PS3.18 F.2).
_Json = Mapping[str, Any]


class _Held(NamedTuple):
    """An object of a study, with its metadata."""

    image: Image
    metadata: _Json


class BearerFile(httpx.Auth):
    """A token from a file, which is read for each request: whoever renews it need not tell us."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the token. Raises Retryable while the file cannot be read."""
        try:
            token = self._file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Retryable(Reason.TARGET_REFUSED, f"token_file: {type(error).__name__}") from None
        request.headers["Authorization"] = f"Bearer {token}"
        yield request


class DicomwebExport:
    """An ExportTarget over one server's studies service.

    DICOMweb knows no way to delete. Some servers take DELETE on the addresses of studies and
    instances all the same; with ``deletes`` this target recalls.
    """

    proves = True

    def __init__(self, client: httpx.Client, *, deletes: bool) -> None:
        self._client = client
        self._deletes = deletes

    @property
    def recalls(self) -> bool:
        """Whether the server takes DELETE."""
        return self._deletes

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def check(self) -> None:
        """Search for a study that cannot be there; whether we may store is not asked."""
        nobody = {"StudyInstanceUID": "2.25.0", "limit": "1"}
        if self._get("/studies", _JSON, nobody) is None:
            raise Retryable(Reason.TARGET_REFUSED, "not a DICOMweb server")

    def store(self, instance: Anonymized) -> None:
        """Send the instance, unless the server holds it as it is.

        A differing one is deleted first, where that is possible, and put back when the new one is
        not taken. Where not, it is the server that decides which of the two it keeps;
        ``differences`` tells.
        """
        held = self.fetch(instance)
        if held is not None and not differences(instance.content, held):
            return
        if held is None or not self._deletes:
            self._post(instance, instance.content)
            return
        self.withdraw(instance)
        with or_else(partial(self._post, instance, held)):
            self._post(instance, instance.content)

    def _post(self, instance: InstanceName, content: bytes) -> None:
        media_type, body = pack(content)
        response = _ask(
            lambda: self._client.post(
                "/studies", content=body, headers={"Content-Type": media_type, **_JSON}
            )
        )
        if response is None:
            raise Retryable(Reason.TARGET_REFUSED, "not a DICOMweb server")
        answer = _json(response)
        if not isinstance(answer, Mapping):
            raise Retryable(Reason.TARGET_REFUSED, "not an answer of STOW-RS")
        if instance.sop_uid not in _uids(answer, _REFERENCED) - _uids(answer, _FAILED):
            raise Retryable(Reason.TARGET_REFUSED, "the instance was not stored")

    def holds(self, instance: InstanceName) -> bool:
        """Ask for the instance's metadata."""
        return self._metadata(_path(instance)) is not None

    def differences(self, kept: Sequence[Anonymized]) -> Iterator[tuple[str, ...]]:
        """Read each instance back, whole."""
        return read_back(self, kept)

    def fetch(self, instance: InstanceName) -> bytes | None:
        """Give the stored DICOM file."""
        response = self._get(_path(instance), _FILE)
        if response is None:
            return None
        try:
            (content,) = unpack(response.headers.get("Content-Type", ""), response.content)
        except ValueError:  # a MultipartError, or another number of parts
            raise Retryable(Reason.TARGET_REFUSED, "not an answer of WADO-RS") from None
        return content

    def withdraw(self, instance: InstanceName) -> None:
        """Delete the instance."""
        self._delete(_path(instance))

    def withdraw_study(self, study_uid: str, sent: Sent, may_go_on: Check = unhindered) -> bool:
        """Delete the images of ``sent``; the study in one step, where it holds nothing else."""
        check_uids(study_uid)
        if not self._deletes:
            return False
        held = self._held(study_uid)
        mine = sent.among([one.image for one in held.values()])
        paths = [path for path, one in held.items() if one.image in mine]
        whole = bool(paths) and len(paths) == len(held)
        for path in [f"/studies/{study_uid}"] if whole else paths:
            may_go_on()
            self._delete(path)
        return not any(
            sent.left(one.image, partial(_is_ours, one.metadata))
            for one in held.values()
            if one.image not in mine
        )

    def withdraw_others(
        self, kept: Sequence[Anonymized], sent: Sent, may_go_on: Check = unhindered
    ) -> None:
        """Delete the study's other images of ours."""
        if not self._deletes:
            return
        names = {instance.sop_uid for instance in kept}
        held = self._held(kept[0].study_uid)
        mine = sent.among([one.image for one in held.values()])
        for path, (image, metadata) in held.items():
            same = image.patient_id == kept[0].patient_id and _is_ours(metadata)
            if same and image in mine and image.sop_uid not in names:
                may_go_on()
                self._delete(path)

    def _held(self, study: str) -> Mapping[str, _Held]:
        """Give the study's objects by their addresses.

        Which instances there are tells QIDO-RS, whose they are each one's metadata.
        """
        check_uids(study)
        held = {}
        for path, sop in self._listed(study).items():
            metadata = self._metadata(path)
            if metadata is not None:
                held[path] = _Held(Image(_first(metadata, _PATIENT_ID), study, sop), metadata)
        return held

    def _listed(self, study: str) -> Mapping[str, str]:
        """Give the SOPInstanceUIDs of all of a study's instances by their addresses.

        A server may answer with fewer than it was asked for (PS3.18 8.3.4.4): only an empty page is
        the last. Raises Retryable when one that says that there are more does not give them.
        """
        listed: dict[str, str] = {}
        while True:
            fields = {"includefield": _SERIES_UID, "limit": str(_PAGE), "offset": str(len(listed))}
            response = self._get(f"/studies/{study}/instances", _JSON, fields)
            # No content (204): no more, or no such study, which another one has deleted meanwhile.
            found = [] if response is None or not response.content else _json(response)
            if not isinstance(found, list):
                raise Retryable(Reason.TARGET_REFUSED, "not an answer of QIDO-RS")
            page = {}
            for entry in found:
                series, sop = _first(entry, _SERIES_UID), _first(entry, _SOP_UID)
                page[_path(InstanceName("", study, series, sop))] = sop
            # One that does not know of pages gives the first one again and again.
            if not page.keys() - listed.keys():
                if response is not None and _tells_of_more(response):
                    raise Retryable(Reason.TARGET_REFUSED, "not all of a study is listed")
                return listed
            listed |= page

    def _metadata(self, path: str) -> _Json | None:
        response = self._get(f"{path}/metadata", _JSON)
        if response is None:
            return None
        answer = _json(response)
        if not isinstance(answer, list) or len(answer) != 1:
            raise Retryable(Reason.TARGET_REFUSED, "not an answer of WADO-RS")
        return answer[0]  # type: ignore[no-any-return]

    def _get(
        self, path: str, headers: Mapping[str, str], fields: Mapping[str, str] | None = None
    ) -> httpx.Response | None:
        return _ask(lambda: self._client.get(path, headers=headers, params=fields))

    def _delete(self, path: str) -> None:
        if self._deletes:
            _ask(lambda: self._client.delete(path))


def _path(instance: InstanceName) -> str:
    uids = instance.study_uid, instance.series_uid, instance.sop_uid
    check_uids(*uids)
    return "/studies/{}/series/{}/instances/{}".format(*uids)


def _ask(call: Callable[[], httpx.Response]) -> httpx.Response | None:
    return ask(call, Reason.TARGET_UNREACHABLE, Reason.TARGET_REFUSED)


def _tells_of_more(response: httpx.Response) -> bool:
    """Say whether a search had more results than were given (Warning 299, PS3.18 8.3.4.4.1)."""
    return str(response.headers.get("Warning", "")).lstrip().startswith("299")


def _json(response: httpx.Response) -> object:
    try:
        return response.json()
    except ValueError:
        raise Retryable(Reason.TARGET_REFUSED, "not an answer of DICOMweb") from None


def _values(entry: object, tag: str) -> list[Any]:
    """Give the values of one attribute of the DICOM JSON Model."""
    element = entry.get(tag) if isinstance(entry, Mapping) else None
    values = element.get("Value") if isinstance(element, Mapping) else None
    return values if isinstance(values, list) else []


def _first(entry: object, tag: str) -> str:
    return str(next(iter(_values(entry, tag)), ""))


def _uids(answer: _Json, sequence: str) -> set[str]:
    return {_first(item, _REFERENCED_UID) for item in _values(answer, sequence)}


def _is_ours(metadata: object) -> bool:
    """Tell whether the metadata are of an image that this gateway, or one like it, made."""
    methods = [str(value) for value in _values(metadata, _METHOD)]
    return header.is_ours(_first(metadata, _SOP_CLASS), methods)
