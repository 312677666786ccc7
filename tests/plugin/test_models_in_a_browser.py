"""The pages of models in a real browser, on a real Orthanc with a store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

from prichexy_store.store import ModelStore
from prichexy_testing.browsers import logged_in, running_browser
from prichexy_testing.plugin_servers import PluginOrthanc, running_plugin_orthanc
from prichexy_testing.servers import free_port, wait_until
from prichexy_testing.store_bundles import METRICS, small_bundle

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.orthanc, pytest.mark.browser]

SEVERE: Final = {"serious", "critical"}
PHONE: Final = {"width": 360, "height": 740}
DESK: Final = {"width": 1280, "height": 900}
REPORT: Final = """<!doctype html><html lang="en"><title>Report</title>
<style>p {color: #112233}</style>
<p id="told">Figures.</p><script>document.getElementById("told").textContent = "ran"</script>
<img src="http://127.0.0.1:9/far.png" alt="far">"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """A store with one version in use, one before, and one offered that brings a report."""
    folder = tmp_path_factory.mktemp("models")
    store = ModelStore(folder / "store")
    for version in ("1", "2"):
        store.promote(small_bundle(folder / version, version), "alice@host")
    offered = small_bundle(folder / "3", "3", "measured", eval_metrics=METRICS)
    (offered / "docs" / "report.html").write_text(REPORT)
    store.offer(offered)
    return store


@pytest.fixture(scope="module")
def orthanc(store: ModelStore) -> Iterator[PluginOrthanc]:
    section = {
        "Broker": {"Url": f"redis://127.0.0.1:{free_port()}/0"},
        "Models": {"Store": str(store.root)},
    }
    with running_plugin_orthanc(section) as server:
        wait_until(lambda: bool(server.health()["ledger"] == "ok"), what="the ledger is open")
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as running:
        yield running


def pages(store: ModelStore) -> list[str]:
    offered = next(one.version.digest for one in store.entries() if not one.last_used)
    parts = [f"/models/{offered}/{part}" for part in ("promote", "card", "report")]
    return ["/models", "/models/rollback", *parts]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_the_pages_of_models_can_be_used_by_everybody(
    orthanc: PluginOrthanc, store: ModelStore, browser: Browser, viewport: Any, scheme: Any
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = logged_in(
        browser, orthanc.user, orthanc.password, viewport=viewport, color_scheme=scheme
    )
    found = []
    for path in pages(store):
        page.goto(f"{orthanc.url}/prichexy{path}")
        found += [
            (path, one["id"])
            for one in axe.run(page).response["violations"]
            if one["impact"] in SEVERE
        ]
        wide = page.evaluate("document.scrollingElement.scrollWidth")
        assert wide <= viewport["width"], path
    page.context.close()
    assert found == []


def test_a_report_runs_no_script_and_asks_no_other_host(
    orthanc: PluginOrthanc, store: ModelStore, browser: Browser
) -> None:
    page = logged_in(browser, orthanc.user, orthanc.password)
    asked: list[str] = []
    refused: dict[str, str | None] = {}
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: refused.update({request.url: request.failure}))
    page.goto(f"{orthanc.url}/prichexy{pages(store)[-1]}", wait_until="networkidle")
    frame = page.frame_locator("iframe")
    assert frame.locator("#told").inner_text() == "Figures."
    colour = frame.locator("#told").evaluate("one => getComputedStyle(one).color")
    assert colour == "rgb(17, 34, 51)", "its own style sheet holds"
    far = [url for url in asked if not url.startswith(orthanc.url)]
    assert [refused.get(url) for url in far] == ["csp"], "refused before it was sent"
    page.context.close()


def test_a_model_is_promoted_and_rolled_back_without_javascript(
    orthanc: PluginOrthanc, store: ModelStore, browser: Browser
) -> None:
    page = logged_in(browser, orthanc.user, orthanc.password, java_script_enabled=False)
    before = store.in_use()
    page.goto(f"{orthanc.url}/prichexy/models")
    page.get_by_role("link", name="Promote… generator 3").click()
    page.get_by_label("It protects patients better.").check()
    page.get_by_role("button", name="Promote").click()
    page.get_by_role("button", name="Yes, promote generator 3").click()
    page.wait_for_url("**/models?note=promoted")
    assert store.in_use() != before
    page.get_by_role("link", name="Roll back…").click()
    page.get_by_label("The trial is over.").check()
    page.get_by_role("button", name="Roll back").click()
    page.get_by_role("button", name="Yes, roll back to").click()
    page.wait_for_url("**/models?note=rolled")
    assert store.in_use() == before
    changes = [(change.action, change.by) for change in store.history()[-2:]]
    by = f"{orthanc.user} on the dashboard"
    assert changes == [("promoted", by), ("rolled back", by)]
    page.goto(f"{orthanc.url}/prichexy/audit")
    assert page.get_by_text("Another model was put to use in the model store.").count() >= 2
    page.context.close()
