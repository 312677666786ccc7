"""An ingest Orthanc with the plugin, as a worker sees it: a small HTTP server in a thread.

It serves the files that it is given as one study, and others if told, takes reports and
announcements, and checks the credentials and the header that the real one checks.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prichexy_testing.fakes_worker import STUDY_ID
from prichexy_worker.contract import (
    API_ROOT,
    REQUEST_HEADER,
    Claim,
    ImagePictures,
    PatientsAsked,
    PatientsTold,
    State,
    StudyReport,
    TextPictures,
    WorkerAnnouncement,
)

__all__ = ["FakeIngest", "OtherStudy", "running_fake_ingest"]

PASSWORD = "fake-ingest-password"


@dataclass(frozen=True)
class OtherStudy:
    """A study: its StudyInstanceUID, and its instances by Orthanc's ids."""

    uid: str
    instances: Mapping[str, bytes]


class FakeIngest:
    """What the server holds and has heard.

    ``answer`` is what a report is answered with: a status and a body; None: as the plugin does.
    ``on_report`` is called with each report before it is answered. ``others`` are further studies
    by Orthanc's ids of them.
    """

    def __init__(self, instances: Mapping[str, bytes]) -> None:
        self.url = ""
        self.user = "worker"
        self.password = PASSWORD
        self.instances = dict(instances)
        self.study_uid = "1.2.840.99999.1"
        self.reports: list[StudyReport] = []
        self.announcements: list[WorkerAnnouncement] = []
        self.pictures: list[TextPictures] = []
        self.images: list[ImagePictures] = []
        self.answer: tuple[int, bytes] | None = None
        self.on_report: Callable[[StudyReport], None] = lambda _report: None
        self.others: dict[str, OtherStudy] = {}

    @property
    def states(self) -> list[State]:
        """The states that were reported, in order, without the questions whether a claim holds."""
        return [report.state for report in self.transitions]

    @property
    def transitions(self) -> list[StudyReport]:
        """The reports without the questions whether a claim holds."""
        return [one for one in self.reports if one.state is not State.PROCESSING or not one.attempt]

    def read(self, path: str) -> tuple[int, bytes]:
        """Answer a GET."""
        own = OtherStudy(self.study_uid, self.instances)
        studies = {STUDY_ID: own, **self.others}
        _, kind, name, *rest = [*path.split("/"), ""]
        if kind == "studies" and name in studies:
            study = studies[name]
            if rest[0] == "instances":
                listed = [
                    {"ID": name, "FileSize": len(content)}
                    for name, content in study.instances.items()
                ]
                return 200, json.dumps(listed).encode()
            return 200, json.dumps(_described(name, study)).encode()
        for study in studies.values():
            if kind == "instances" and name in study.instances:
                return 200, study.instances[name]
        return 404, b""

    def take(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Answer a POST."""
        if self.answer is not None:
            return self.answer
        if path == f"{API_ROOT}/reports":
            report = StudyReport.from_json(json.loads(body))
            self.on_report(report)
            self.reports.append(report)
            claims = sum(
                one.state is State.PROCESSING and one.job_id == report.job_id
                for one in self.transitions
            )
            claim = Claim(report.attempt in (0, claims), attempt=claims)
            return 200, json.dumps(claim.to_json()).encode()
        if path == f"{API_ROOT}/pictures":
            self.pictures.append(TextPictures.from_json(json.loads(body)))
            return 200, json.dumps(Claim(proceed=True, attempt=1).to_json()).encode()
        if path == f"{API_ROOT}/images":
            self.images.append(ImagePictures.from_json(json.loads(body)))
            return 200, json.dumps(Claim(proceed=True, attempt=1).to_json()).encode()
        if path == f"{API_ROOT}/patients":
            PatientsAsked.from_json(json.loads(body))
            return 200, json.dumps(PatientsTold(proceed=True, patients=1).to_json()).encode()
        if path == f"{API_ROOT}/workers":
            self.announcements.append(WorkerAnnouncement.from_json(json.loads(body)))
            return 200, b"{}"
        return 404, b""


def _described(name: str, study: OtherStudy) -> dict[str, object]:
    return {
        "ID": name,
        "LastUpdate": "20240101T000000",
        "MainDicomTags": {"StudyInstanceUID": study.uid},
    }


def _handler(ingest: FakeIngest) -> type[BaseHTTPRequestHandler]:
    pair = base64.b64encode(f"{ingest.user}:{ingest.password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(*(ingest.read(self.path) if self._allowed() else (401, b"")))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if not self._allowed():
                self._reply(401, b"")
            elif REQUEST_HEADER not in self.headers and self.path.startswith(API_ROOT):
                self._reply(403, b"")
            else:
                self._reply(*ingest.take(self.path, body))

        def _allowed(self) -> bool:
            return self.headers.get("Authorization") == f"Basic {pair}"

        def _reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    return Handler


@contextmanager
def running_fake_ingest(instances: Mapping[str, bytes] | None = None) -> Iterator[FakeIngest]:
    """Serve for the block."""
    ingest = FakeIngest(instances or {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(ingest))
    ingest.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield ingest
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
