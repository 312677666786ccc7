"""What may be changed in a real Orthanc around the dashboard, and by whom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from pydicom.uid import generate_uid

from prichexy_testing.browsers import logged_in, running_browser
from prichexy_testing.dicoms import radiograph_dataset, write
from prichexy_testing.plugin_servers import PluginOrthanc, running_plugin_orthanc
from prichexy_testing.servers import free_port

pytestmark = pytest.mark.orthanc

#: Chromium takes these names for this machine: a site each, over plain HTTP.
EVERY_NAME_IS_HERE = "--host-resolver-rules=MAP *.example 127.0.0.1"

#: The picture of a whole image in doubt, as pictures.py keeps it.
OURS = 0x5058 + 13
#: A user of Orthanc who stands in no list of roles.
NEMO = ("nemo", "password")


@pytest.fixture(scope="module")
def orthanc() -> Iterator[PluginOrthanc]:
    section = {
        "Broker": {"Url": f"redis://127.0.0.1:{free_port()}/0"},
        "Roles": {"Administrators": ["tester"]},
    }
    with running_plugin_orthanc(section, UserContentType={"ours": OURS, "theirs": 5000}) as server:
        server.stop()
        server._settings["RegisteredUsers"]["nemo"] = NEMO[1]
        yield server.start()


@pytest.fixture
def study(orthanc: PluginOrthanc) -> str:
    """Store a study; give Orthanc's id of it."""
    uids = {
        keyword: generate_uid()
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    }
    answer = orthanc.post("/instances", write(radiograph_dataset(identity=uids)))
    value: str = answer.json()["ParentStudy"]
    return value


class _Elsewhere(BaseHTTPRequestHandler):
    """A page of another site that leads the browser to ``lure`` at once."""

    lure = ""

    def do_GET(self) -> None:
        page = f'<meta http-equiv="refresh" content="0;url={self.lure}">'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Say nothing."""


@pytest.mark.browser
def test_no_link_deletes_anything(orthanc: PluginOrthanc, study: str) -> None:
    by_name = orthanc.url.replace("127.0.0.1", "gateway.example")
    lure = f"/studies/{study}?_method=DELETE"
    browsers = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    _Elsewhere.lure = f"{by_name}{lure}"
    elsewhere = HTTPServer(("127.0.0.1", 0), _Elsewhere)
    Thread(target=elsewhere.serve_forever, daemon=True).start()
    try:
        with running_browser(EVERY_NAME_IS_HERE) as browser:
            page = logged_in(browser, orthanc.user, orthanc.password)
            for start in (
                # A link on another site's page, over plain HTTP.
                f"http://evil.example:{elsewhere.server_port}/",
                # One that came from no page, such as in a mail: over plain HTTP, and where the
                # browser tells so.
                f"{by_name}{lure}",
                f"{orthanc.url}{lure}",
            ):
                with (
                    page.expect_response(lambda one: "_method" in one.url) as answer,
                    # An answer without a page is an error to Playwright.
                    suppress(browsers.Error),
                ):
                    page.goto(start)
                assert answer.value.status == 403
    finally:
        elsewhere.shutdown()
        elsewhere.server_close()
    assert orthanc.get(f"/studies/{study}").is_success


@pytest.mark.browser
def test_orthancs_own_pages_and_programs_delete_as_before(
    orthanc: PluginOrthanc, study: str
) -> None:
    by_name = orthanc.url.replace("127.0.0.1", "gateway.example")
    with running_browser(EVERY_NAME_IS_HERE) as browser:
        page = logged_in(browser, orthanc.user, orthanc.password)
        page.goto(f"{by_name}/app/explorer.html")
        status = page.evaluate(
            "id => fetch(`/studies/${id}/metadata/5000`, {method: 'PUT', body: 'x'})"
            ".then(answer => answer.status)",
            study,
        )
    assert status == 200
    assert orthanc.ask("DELETE", f"/studies/{study}").is_success


@pytest.mark.parametrize("name", [str(OURS), f"0{OURS}", f"+{OURS}", f"{OURS}/", "ours"])
@pytest.mark.parametrize("level", ["studies", "patients", "series"])
def test_nobody_replaces_a_picture_that_people_decide_over(
    orthanc: PluginOrthanc, study: str, level: str, name: str
) -> None:
    address = f"/{level}/{study}/attachments/{name}"
    assert orthanc.ask("PUT", address, content=b"forged").status_code == 403
    assert orthanc.ask("DELETE", address).status_code == 403
    assert orthanc.ask("GET", f"{address}?_method=PUT").status_code == 403
    assert not orthanc.get(f"/studies/{study}/attachments/{OURS}/data").is_success


@pytest.mark.parametrize("name", ["4999", "theirs"])
def test_attachments_of_others_are_theirs(orthanc: PluginOrthanc, study: str, name: str) -> None:
    address = f"/studies/{study}/attachments/{name}"
    assert orthanc.ask("PUT", address, content=b"x").is_success
    assert orthanc.get(f"{address}/data").content == b"x"


def test_who_stands_in_no_list_of_roles_reads_and_changes_nothing(
    orthanc: PluginOrthanc, study: str
) -> None:
    for method, address in (
        ("DELETE", f"/studies/{study}"),
        ("PUT", f"/studies/{study}/metadata/5000"),
        ("POST", "/instances"),
        ("DELETE", "/changes"),
    ):
        assert orthanc.ask(method, address, auth=NEMO, content=b"x").status_code == 403
    assert orthanc.ask("GET", f"/studies/{study}", auth=NEMO).is_success
    assert orthanc.ask("GET", "/prichexy", auth=NEMO).status_code == 403
    assert orthanc.ask("DELETE", f"/studies/{study}").is_success
