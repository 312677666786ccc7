"""Archives as export targets, over the wire of httpx and in memory.

Each holds DICOM files, and keeps a list of the requests that changed it or would have.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
import pydicom

from prichexy_worker.export import DicomwebExport, OrthancExport
from prichexy_worker.export.multipart import pack, unpack
from prichexy_worker.export.orthanc import orthanc_instance_id
from prichexy_worker.orthanc_client import connect

__all__ = ["DicomwebArchive", "OrthancArchive"]

_INSTANCE = re.compile(r"/dw(/studies/[^/]+/series/[^/]+/instances/[^/]+)(/metadata)?")


def _header(content: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)


@dataclass
class _Archive:
    """``takes`` says of a file that is sent whether it is stored; 500 is the answer to others."""

    held: dict[str, bytes] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    takes: Callable[[bytes], bool] = lambda _content: True

    def sops(self) -> list[str]:
        """Name what is held, by SOPInstanceUIDs."""
        return sorted(str(_header(content).SOPInstanceUID) for content in self.held.values())

    def put(self, content: bytes) -> str:
        """Hold a file; gives its name here."""
        name = self._name(_header(content))
        self.held[name] = content
        return name

    def _name(self, header: pydicom.Dataset) -> str:
        raise NotImplementedError

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.method in ("POST", "DELETE") and not request.url.path.endswith("/lookup"):
            self.changes.append(f"{request.method} {request.url.path}")
        return self.answer(request)

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer as such an archive does."""
        raise NotImplementedError


@dataclass
class DicomwebArchive(_Archive):
    """One that takes DELETE. It lists ``page`` instances at most, and ``pages`` says whether it
    knows of others than the first; ``warns`` whether it tells that there are more.
    """

    page: int = 1000
    pages: bool = True
    warns: bool = False

    def target(self) -> DicomwebExport:
        """Give the target that speaks to it."""
        transport = httpx.MockTransport(self._answer)
        client = httpx.Client(base_url="http://archive/dw", transport=transport)
        return DicomwebExport(client, deletes=True)

    def _name(self, header: pydicom.Dataset) -> str:
        uids = header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID
        return "/studies/{}/series/{}/instances/{}".format(*uids)

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/dw")
        if request.method == "POST":
            (content,) = unpack(request.headers["Content-Type"], request.content)
            if not self.takes(content):
                return httpx.Response(500)
            self.put(content)
            uid = {"00081155": {"vr": "UI", "Value": [str(_header(content).SOPInstanceUID)]}}
            return httpx.Response(200, json={"00081199": {"vr": "SQ", "Value": [uid]}})
        if request.method == "DELETE":
            self.held = {
                at: it for at, it in self.held.items() if not f"{at}/".startswith(f"{path}/")
            }
            return httpx.Response(204)
        if path.endswith("/instances"):
            return self._listed(path.removesuffix("instances"), request.url.params)
        asked = _INSTANCE.fullmatch(request.url.path)
        if asked is None or asked[1] not in self.held:
            return httpx.Response(404)
        content = self.held[asked[1]]
        if asked[2]:
            return httpx.Response(200, json=[_header(content).to_json_dict()])
        media_type, body = pack(content)
        return httpx.Response(200, content=body, headers={"Content-Type": media_type})

    def _listed(self, study: str, asked: httpx.QueryParams) -> httpx.Response:
        every = sorted(at for at in self.held if at.startswith(study))
        begin = int(asked.get("offset", 0)) if self.pages else 0
        shown = every[begin : begin + min(self.page, int(asked["limit"]))]
        entries = [
            {
                "0020000E": {"vr": "UI", "Value": [at.split("/")[4]]},
                "00080018": {"vr": "UI", "Value": [at.split("/")[6]]},
            }
            for at in shown
        ]
        if not entries:
            return httpx.Response(204)
        more = self.warns and begin + len(shown) < len(every)
        headers = {"Warning": '299 archive "There are more"'} if more else {}
        return httpx.Response(200, json=entries, headers=headers)


@dataclass
class OrthancArchive(_Archive):
    """One that does not overwrite: it answers AlreadyStored."""

    def target(self) -> OrthancExport:
        """Give the target that speaks to it."""
        client = connect("http://archive", "u", "p", None, 30)
        client._transport, client._mounts = httpx.MockTransport(self._answer), {}
        return OrthancExport(client)

    def _name(self, header: pydicom.Dataset) -> str:
        uids = header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID
        return orthanc_instance_id(str(header.PatientID), *map(str, uids))

    def answer(self, request: httpx.Request) -> httpx.Response:
        _, kind, *names = request.url.path.split("/")
        name = names[0] if names else ""
        if request.method == "POST" and kind == "instances":
            return self._posted(request.content)
        if kind == "tools":
            uid = request.content.decode()
            found = {
                self._study(it) for it in self.held.values() if _header(it).StudyInstanceUID == uid
            }
            return httpx.Response(200, json=[{"ID": one, "Type": "Study"} for one in sorted(found)])
        if kind == "studies":
            return self._of_study(request, name)
        if name not in self.held:
            return httpx.Response(404)
        if request.method == "DELETE":
            del self.held[name]
            return httpx.Response(200, json={})
        if names[1:] == ["file"]:
            return httpx.Response(200, content=self.held[name])
        header = _header(self.held[name])
        method = header.get("DeidentificationMethod") or ""
        methods = method if isinstance(method, str) else "\\".join(method)
        tags = {"SOPClassUID": str(header.SOPClassUID), "DeidentificationMethod": methods}
        return httpx.Response(200, json=tags)

    def _of_study(self, request: httpx.Request, name: str) -> httpx.Response:
        mine = {at: it for at, it in self.held.items() if self._study(it) == name}
        if not mine:
            return httpx.Response(404)
        if request.method == "DELETE":
            self.held = {at: it for at, it in self.held.items() if at not in mine}
            return httpx.Response(200, json={})
        if request.url.path.endswith("/instances"):
            uids = {at: str(_header(it).SOPInstanceUID) for at, it in mine.items()}
            listed = [{"ID": at, "MainDicomTags": {"SOPInstanceUID": uids[at]}} for at in uids]
            return httpx.Response(200, json=listed)
        header = _header(next(iter(mine.values())))
        tags = {
            "PatientMainDicomTags": {"PatientID": str(header.PatientID)},
            "MainDicomTags": {"StudyInstanceUID": str(header.StudyInstanceUID)},
        }
        return httpx.Response(200, json=tags)

    def _posted(self, content: bytes) -> httpx.Response:
        if not self.takes(content):
            return httpx.Response(500)
        name = self._name(_header(content))
        status = "AlreadyStored" if name in self.held else "Success"
        self.held.setdefault(name, content)
        return httpx.Response(200, content=json.dumps({"ID": name, "Status": status}).encode())

    @staticmethod
    def _study(content: bytes) -> str:
        header = _header(content)
        whose = f"{header.PatientID}|{header.StudyInstanceUID}"
        digest = hashlib.sha1(whose.encode(), usedforsecurity=False).hexdigest()
        return "-".join(digest[start : start + 8] for start in range(0, 40, 8))
