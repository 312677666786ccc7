"""The dashboard for whoever comes: every page in a real browser, on a real Orthanc.

Pages are found by following links, so that a new one is looked at, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urldefrag, urljoin, urlsplit

import pytest
from pydicom.uid import generate_uid

from prichexy_testing.browsers import logged_in, running_browser
from prichexy_testing.dicoms import radiograph_dataset, write
from prichexy_testing.plugin_fakes import announcement_of, report_of
from prichexy_testing.plugin_servers import PluginOrthanc, running_plugin_orthanc
from prichexy_testing.servers import free_port, wait_until
from prichexy_worker.contract import Available, Reason, State, StudyMessage, TargetInfo

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.orthanc, pytest.mark.browser]

#: What axe calls so bad that somebody cannot use the page.
SEVERE: Final = {"serious", "critical"}
#: Of what has to be seen to understand a picture (WCAG 2.2, 1.4.11).
LEAST_CONTRAST: Final = 3.0
#: Gives the contrast of each kind of bar against the figure that it stands in: that of its outline
#: or, where it has none, of its colour.
BARS: Final = """() => {
  const channels = (colour) => colour.match(/[0-9.]+/g).slice(0, 3).map((one) => one / 255);
  const linear = (one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4;
  const light = (colour) => {
    const [red, green, blue] = channels(colour).map(linear);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrast = (one, two) => {
    const [dark, bright] = [light(one), light(two)].sort((low, high) => low - high);
    return (bright + 0.05) / (dark + 0.05);
  };
  const ground = getComputedStyle(document.querySelector("figure")).backgroundColor;
  const found = {};
  for (const kind of ["exported", "quarantined", "failed", "median", "most"]) {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    bar.setAttribute("class", kind);
    document.querySelector("figure svg").append(bar);
    const style = getComputedStyle(bar);
    found[kind] = contrast(style.stroke === "none" ? style.fill : style.stroke, ground);
  }
  return found;
}"""
PHONE: Final = {"width": 360, "height": 740}
DESK: Final = {"width": 1280, "height": 900}
JOB: Final = re.compile("[0-9a-f]{32}")
#: A page that is about all studies of a state and reason, which its query names.
OF_ONE_REASON: Final = re.compile(r"/studies/(retry|reject)$")
ARCHIVE: Final = TargetInfo(
    name="archive",
    kind="dicomweb",
    place=f"https://archive.example/{'a-very-long-path/' * 6}dicom-web",
    encrypted=True,
    check="read_back",
)
ENDS: Final = {
    State.EXPORTED: None,
    State.QUARANTINED: Reason.MIXED_PATIENTS,
    State.FAILED: Reason.TOO_MANY_ATTEMPTS,
}


@pytest.fixture(scope="module")
def orthanc() -> Iterator[PluginOrthanc]:
    """An Orthanc with a study in each state that waits for nothing."""
    chests = {"Name": "chests", "Modality": ["CR", "DX"], "BodyPart": ["CHEST"]}
    rules = [{**chests, "Targets": ["archive", "a-research-target-of-long-name"]}]
    section = {
        "Broker": {"Url": f"redis://127.0.0.1:{free_port()}/0"},
        "Intake": {"Rules": rules},
    }
    with running_plugin_orthanc(section) as server:
        wait_until(lambda: bool(server.health()["ledger"] == "ok"), what="the ledger is open")
        for name in (*ENDS, "waiting"):
            store(server, name)
        store(server, State.REJECTED, body_part="HIP")
        server.wait_for({"pending": len(ENDS) + 1, "rejected": 1})
        worker = replace(announcement_of(), targets=(ARCHIVE,))
        server.post_as_worker("/workers", worker.to_json())
        pending = [study for study in server.studies() if study["state"] == "pending"]
        for study, (state, reason) in zip(pending, ENDS.items(), strict=False):
            message = StudyMessage(study["job_id"], study["study_id"], revision=1)
            for report in (
                report_of(message, State.PROCESSING),
                report_of(
                    message, state, reason, attempt=1, instances=1, durations={"deform": 1.0}
                ),
            ):
                assert server.post_as_worker("/reports", report.to_json()).json()["proceed"]
        for pause in ({"stage": "intake"}, {"stage": "target", "target": "archive"}):
            chosen = {**pause, "reason": Reason.PAUSED_DOUBT.value}
            assert server.submit("/prichexy/pauses", chosen).status_code == 303
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as running:
        yield running


@pytest.fixture(scope="module")
def addresses(orthanc: PluginOrthanc, browser: Browser) -> tuple[str, ...]:
    """The dashboard's pages: of pages of one kind, such as one study's, one in each state."""
    page = logged_in(browser, orthanc.user, orthanc.password)
    found: dict[str, str] = {}
    waiting = [f"{orthanc.url}/prichexy"]
    while waiting:
        address = waiting.pop(0)
        answer = page.goto(address)
        assert answer is not None
        assert answer.ok, address
        kind = JOB.sub("JOB", urlsplit(address).path)
        states = page.locator(".chip").all_inner_texts() if kind.endswith("JOB") else []
        if found.setdefault(f"{kind} {states[:1]}", address) != address:
            continue
        for link in page.locator("a[href]").all():
            target = urldefrag(urljoin(page.url, link.get_attribute("href")))[0]
            path = urlsplit(target)._replace(query="").geturl()
            if OF_ONE_REASON.search(path):
                path = target
            inside = path.removeprefix(f"{orthanc.url}/prichexy")
            ours = inside != path and not re.search(r"^/api/|\.(csv|png)$", inside)
            if ours and path not in waiting and path not in found.values():
                waiting.append(path)
    page.context.close()
    return tuple(found.values())


def store(server: PluginOrthanc, name: str, **attributes: Any) -> None:
    uids = {
        keyword: generate_uid(entropy_srcs=[keyword, name])
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    }
    content = write(radiograph_dataset(identity=uids, **attributes))
    assert server.post("/instances", content).is_success


def in_state(server: PluginOrthanc, state: State) -> dict[str, Any]:
    return next(study for study in server.studies() if study["state"] == state)


def focused(page: Page) -> str:
    text: str = page.evaluate("document.activeElement.innerText || document.activeElement.name")
    return text


def tab_to(page: Page, text: str) -> None:
    """Press Tab until the focus is on what reads ``text``."""
    for _ in range(100):
        page.keyboard.press("Tab")
        if focused(page) == text:
            return
    raise AssertionError(f"Tab never comes to {text!r} on {page.url}")


def test_all_kinds_of_pages_are_found(addresses: tuple[str, ...]) -> None:
    kinds = {JOB.sub("JOB", urlsplit(address).path) for address in addresses}
    assert {
        "/prichexy",
        "/prichexy/studies",
        "/prichexy/studies/JOB",
        "/prichexy/studies/JOB/retry",
        "/prichexy/studies/retry",
        "/prichexy/studies/reject",
        "/prichexy/rules",
        "/prichexy/pauses",
        "/prichexy/audit",
    } <= kinds


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_axe_has_no_serious_finding(
    orthanc: PluginOrthanc,
    browser: Browser,
    addresses: tuple[str, ...],
    viewport: Any,
    scheme: Any,
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = logged_in(
        browser, orthanc.user, orthanc.password, viewport=viewport, color_scheme=scheme
    )
    findings = []
    for address in addresses:
        page.goto(address)
        for found in axe.run(page).response["violations"]:
            if found["impact"] in SEVERE:
                nodes = [node["html"][:200] for node in found["nodes"][:3]]
                findings.append((urlsplit(address).path, found["id"], nodes))
    page.context.close()
    assert findings == []


@pytest.mark.parametrize("path", ["/nothing", "/studies?reason=x", "/backfill"])
def test_a_refusal_is_a_page_for_a_phone_without_a_serious_finding(
    orthanc: PluginOrthanc, browser: Browser, path: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = logged_in(browser, orthanc.user, orthanc.password, viewport=PHONE)
    answer = page.goto(f"{orthanc.url}/prichexy{path}")
    assert answer is not None
    assert not answer.ok
    findings = axe.run(page).response["violations"]
    assert not [found["id"] for found in findings if found["impact"] in SEVERE]
    assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"]
    page.get_by_role("link", name="To the overview").click()
    page.wait_for_url("**/prichexy")
    page.context.close()


def test_nothing_sticks_out_of_a_phone(
    orthanc: PluginOrthanc, browser: Browser, addresses: tuple[str, ...]
) -> None:
    page = logged_in(browser, orthanc.user, orthanc.password, viewport=PHONE)
    for address in addresses:
        page.goto(address)
        width = page.evaluate("document.scrollingElement.scrollWidth")
        assert width <= PHONE["width"], urlsplit(address).path
    page.context.close()


def test_to_make_a_study_anew_fits_a_phone(orthanc: PluginOrthanc, browser: Browser) -> None:
    models = (Available("c" * 64, replace(announcement_of().model, name="prichexy-" * 6)),)
    worker = replace(announcement_of("with-models"), models=models)
    orthanc.post_as_worker("/workers", worker.to_json())
    job = in_state(orthanc, State.EXPORTED)["job_id"]
    page = logged_in(browser, orthanc.user, orthanc.password, viewport=PHONE)
    page.goto(f"{orthanc.url}/prichexy/studies/{job}/rerun")
    assert "prichexy-" in page.get_by_label("Model").inner_text()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"]
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_bars_of_a_plot_are_seen_by_who_sees_little_contrast(
    orthanc: PluginOrthanc, browser: Browser, scheme: Any
) -> None:
    page = logged_in(browser, orthanc.user, orthanc.password, color_scheme=scheme)
    page.goto(f"{orthanc.url}/prichexy")
    contrasts: dict[str, float] = page.evaluate(BARS)
    page.context.close()
    assert {"exported", "quarantined", "failed", "median", "most"} <= set(contrasts)
    assert {kind: found for kind, found in contrasts.items() if found < LEAST_CONTRAST} == {}


def test_what_a_dry_run_shows_fits_a_phone_and_has_no_serious_finding(
    orthanc: PluginOrthanc, browser: Browser
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = logged_in(browser, orthanc.user, orthanc.password, viewport=PHONE)
    page.goto(f"{orthanc.url}/prichexy/rules")
    for rules, said in (
        ('[{"Name": "others", "BodyPart": ["HIP"], "Targets": ["archive"]}]', "5 of 5 studies"),
        ("[{}]", "Rules[0].Name: is missing"),
    ):
        page.get_by_label("Other rules").fill(rules)
        page.get_by_role("button", name="Try them").click()
        page.get_by_text(said).wait_for()
        assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"]
        findings = axe.run(page).response["violations"]
        assert not [found["id"] for found in findings if found["impact"] in SEVERE]
        assert page.get_by_label("Other rules").input_value() == rules
    page.context.close()


def test_a_pause_is_made_and_ended_without_javascript(
    orthanc: PluginOrthanc, browser: Browser
) -> None:
    page = logged_in(browser, orthanc.user, orthanc.password, java_script_enabled=False)
    page.goto(f"{orthanc.url}/prichexy/pauses")
    part = page.locator("section", has=page.get_by_role("heading", name="Export to all targets"))
    part.locator("summary").click()
    part.get_by_label("Others need the network").check()
    part.get_by_role("button", name="Pause").click()
    page.wait_for_url("**/pauses?note=paused")
    part.get_by_role("button", name="Let it go on").click()
    page.wait_for_url("**/pauses?note=resumed")
    assert "export" not in [pause["stage"] for pause in orthanc.health()["pauses"]]
    page.context.close()


def test_light_and_dark_differ(orthanc: PluginOrthanc, browser: Browser) -> None:
    colours = set()
    for scheme in ("light", "dark"):
        page = logged_in(browser, orthanc.user, orthanc.password, color_scheme=scheme)
        page.goto(f"{orthanc.url}/prichexy")
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.context.close()
    assert len(colours) == 2


def test_a_page_loads_nothing_from_elsewhere_and_breaks_no_policy(
    orthanc: PluginOrthanc, browser: Browser, addresses: tuple[str, ...]
) -> None:
    page = logged_in(browser, orthanc.user, orthanc.password)
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    for address in addresses:
        page.goto(address)
    page.context.close()
    assert [url for url in asked if not url.startswith(f"{orthanc.url}/prichexy")] == []
    assert complaints == []


def test_what_changes_by_itself_is_kept_up_and_nobody_is_disturbed(
    orthanc: PluginOrthanc, browser: Browser
) -> None:
    page = logged_in(browser, orthanc.user, orthanc.password)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(f"{orthanc.url}/prichexy")
    page.locator(".backfill summary").click()
    rate = page.locator("input[name=per_minute]")
    rate.fill("7")
    page.mouse.move(0, 0)
    held = page.locator("section.tile", has_text="Broker")
    held.evaluate("part => getSelection().selectAllChildren(part)")
    held.evaluate("part => { part.querySelector('p').textContent = 'read by somebody'; }")
    worker = announcement_of("the-newcomer")
    assert orthanc.post_as_worker("/workers", worker.to_json()).is_success
    page.get_by_text("the-newcomer").wait_for()
    assert held.inner_text().count("read by somebody") == 1, "it is selected"
    assert rate.input_value() == "7"
    assert page.evaluate("document.activeElement.name") == "per_minute"
    page.get_by_role("button", name="Stop updating").click()
    page.reload()
    page.get_by_role("button", name="Update by itself").wait_for()
    assert complaints == []
    page.context.close()


def test_a_page_that_gets_no_answer_says_since_when_what_it_shows_is_old(
    orthanc: PluginOrthanc, browser: Browser
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = logged_in(browser, orthanc.user, orthanc.password)
    page.clock.install()
    page.goto(f"{orthanc.url}/prichexy")
    moment = page.locator("[data-live=moment]").get_attribute("data-at")
    page.route("**/prichexy", lambda route: route.abort())
    alert = page.get_by_role("alert")
    for seconds, told in ((11, 0), (21, 1)):
        with page.expect_event("requestfailed"):
            page.clock.run_for(1000 * seconds)
        page.wait_for_function(
            "told => document.querySelectorAll('[role=alert]').length === told", arg=told
        )
    assert f"No answer since {moment}" in alert.inner_text()
    assert "grayscale" in page.locator("[data-live=tile-1]").evaluate(
        "one => getComputedStyle(one).filter"
    )
    findings = axe.run(page).response["violations"]
    assert not [found["id"] for found in findings if found["impact"] in SEVERE]
    page.unroute("**/prichexy")
    page.clock.run_for(41_000)
    alert.wait_for(state="detached")
    assert page.locator("main.old").count() == 0
    page.context.close()


def test_a_study_is_tried_again_by_keyboard_alone(orthanc: PluginOrthanc, browser: Browser) -> None:
    study = in_state(orthanc, State.FAILED)
    page = logged_in(browser, orthanc.user, orthanc.password)
    page.goto(f"{orthanc.url}/prichexy/studies?state=failed")
    tab_to(page, study["job_id"][:8])
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/studies/{study['job_id']}")
    tab_to(page, "Try again…")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "the focus is seen"
    page.keyboard.press("Enter")
    page.wait_for_url("**/retry")
    tab_to(page, "Try again")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: f"/studies/{study['job_id']}?" in url)
    assert orthanc.trail(study["job_id"])[-1] == "pending"
    page.context.close()


def test_a_study_is_tried_again_without_javascript(
    orthanc: PluginOrthanc, browser: Browser
) -> None:
    study = in_state(orthanc, State.QUARANTINED)
    page = logged_in(browser, orthanc.user, orthanc.password, java_script_enabled=False)
    page.goto(f"{orthanc.url}/prichexy/studies/{study['job_id']}")
    page.get_by_role("link", name="Try again…").click()
    page.get_by_role("button", name="Try again").click()
    page.wait_for_url(lambda url: f"/studies/{study['job_id']}?" in url)
    assert orthanc.trail(study["job_id"])[-1] == "pending"
    page.context.close()


def test_a_page_that_is_kept_up_does_not_contradict_itself(
    orthanc: PluginOrthanc, browser: Browser
) -> None:
    page = logged_in(browser, orthanc.user, orthanc.password)
    page.goto(f"{orthanc.url}/prichexy/pauses")
    part = page.locator("section", has=page.get_by_role("heading", name="archive"))
    part.get_by_role("button", name="Let it go on").click()
    page.wait_for_url("**/pauses?note=resumed")
    page.context.close()
    study = in_state(orthanc, State.PENDING)
    message = StudyMessage(study["job_id"], study["study_id"], revision=study["revision"])
    pages = [
        logged_in(browser, orthanc.user, orthanc.password) for _ in ("overview", "studies", "read")
    ]
    for page, path in zip(pages, ("", "/studies?state=processing", "/studies"), strict=True):
        page.goto(f"{orthanc.url}/prichexy{path}")
    overview, studies, read = pages
    row = read.locator("tr", has_text=study["job_id"][:8])
    row.hover()
    moment, tabs = (read.locator(f"[data-live={part}]").inner_text() for part in ("moment", "tabs"))
    studies.get_by_text("No study is processing now.").wait_for()
    claim = orthanc.post_as_worker("/reports", report_of(message, State.PROCESSING).to_json())
    attempt = claim.json()["attempt"]
    studies.locator("tr", has_text=study["job_id"][:8]).wait_for()
    assert "No study is processing" not in studies.inner_text("main")
    held = report_of(message, State.QUARANTINED, Reason.BURNED_IN_TEXT, attempt=attempt)
    assert orthanc.post_as_worker("/reports", held.to_json()).json()["proceed"]
    sentence = Reason.BURNED_IN_TEXT.sentence
    overview.locator("[data-live=held]").get_by_role("link", name=sentence).wait_for()
    # What somebody reads stays, and so does what the page says it is as of.
    changed = "([part, text]) => document.querySelector(part).innerText !== text"
    read.wait_for_function(changed, arg=["[data-live=tabs]", tabs])
    assert "pending" in row.inner_text()
    assert read.locator("[data-live=moment]").inner_text() == moment
    read.mouse.move(0, 0)
    row.get_by_text("quarantined", exact=True).wait_for()
    read.wait_for_function(changed, arg=["[data-live=moment]", moment])
    for page in pages:
        page.context.close()
