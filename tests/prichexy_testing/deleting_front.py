"""A DICOMweb server that deletes: Orthanc's plugin does not, and this stands in front of it.

DELETE on the address of a study or an instance is answered as Google's and Microsoft's servers
answer it: 204, or 404 when there is none. All else goes to the plugin.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prichexy_testing.servers import OrthancServer

__all__ = ["deleting_front"]

_PASSED_ON = ("Accept", "Content-Type")


@contextmanager
def deleting_front(orthanc: OrthancServer) -> Iterator[str]:
    """Give the address of the server in front of ``orthanc``; it lets anyone in."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._pass_on()

        def do_POST(self) -> None:
            self._pass_on()

        def do_DELETE(self) -> None:
            _, level, uid = self.path.rsplit("/", 2)  # studies or instances
            named = orthanc.post("/tools/lookup", uid.encode()).json()
            found = [entry["Path"] for entry in named if entry["Path"].startswith(f"/{level}/")]
            for path in found:
                orthanc.delete(path)
            self._answer(204 if found else 404)

        def _pass_on(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            response = orthanc.ask(
                self.command,
                f"/dicom-web{self.path}",
                content=self.rfile.read(length) if length else None,
                headers={name: self.headers[name] for name in _PASSED_ON if self.headers[name]},
            )
            self._answer(
                response.status_code, response.headers.get("Content-Type"), response.content
            )

        def _answer(self, status: int, media_type: str | None = None, body: bytes = b"") -> None:
            self.send_response(status)
            if media_type:
                self.send_header("Content-Type", media_type)
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Keep the test's output readable."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
