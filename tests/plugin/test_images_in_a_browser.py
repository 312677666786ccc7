"""Images side by side in a real browser, on a real Orthanc, with and without the script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
from pydicom.dataset import Dataset

from prichexy_testing.browsers import logged_in, running_browser
from prichexy_testing.dicoms import phantom, radiograph_dataset, write
from prichexy_testing.plugin_fakes import report_of
from prichexy_testing.plugin_servers import PluginOrthanc, running_plugin_orthanc
from prichexy_testing.servers import free_port, wait_until
from prichexy_worker import deform
from prichexy_worker.contract import IMAGE_PARTS, Claim, ImagePictures, State, StudyMessage
from prichexy_worker.pixels import Radiograph
from prichexy_worker.side_by_side import SideBySide, drawn

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.orthanc, pytest.mark.browser]

SEVERE: Final = {"serious", "critical"}
PHONE: Final = {"width": 360, "height": 740}
DESK: Final = {"width": 1280, "height": 900}


def _drawn() -> SideBySide:
    before = Radiograph(phantom(600, 500, bits_stored=12, signed=False), 12)
    field = np.full((2, 64, 64), 0.02, np.float32)
    after = deform.warp(before, field)
    header = Dataset()
    header.PixelSpacing = [0.2, 0.2]
    return drawn(before, after, field, deform.measure(before, after, field), header, 600)


@pytest.fixture(scope="module")
def orthanc() -> Iterator[PluginOrthanc]:
    """An Orthanc with an exported study of two images that are shown."""
    broker = {"Broker": {"Url": f"redis://127.0.0.1:{free_port()}/0"}}
    with running_plugin_orthanc(broker) as server:
        wait_until(lambda: bool(server.health()["ledger"] == "ok"), what="the ledger is open")
        assert server.post("/instances", write(radiograph_dataset())).is_success
        server.wait_for({"pending": 1})
        [study] = server.studies()
        message = StudyMessage(study["job_id"], study["study_id"], revision=1)
        server.post_as_worker("/reports", report_of(message, State.PROCESSING).to_json())
        found = _drawn()
        for number in (1, 2):
            shown = ImagePictures(
                message.job_id, 1, 1, number, 2, found.figures, found.pictures
            ).to_json()
            assert Claim.from_json(server.post_as_worker("/images", shown).json()).proceed
        end = report_of(message, State.EXPORTED, attempt=1, measures={"images_shown": 2.0})
        assert server.post_as_worker("/reports", end.to_json()).json()["proceed"]
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as running:
        yield running


def opened(browser: Browser, orthanc: PluginOrthanc, **options: Any) -> tuple[Page, list[str]]:
    """Give the study's page with the first image opened, and what was asked for of pictures."""
    page = logged_in(browser, orthanc.user, orthanc.password, **options)
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url) if one.url.endswith(".jpg") else None)
    [study] = orthanc.studies()
    page.goto(f"{orthanc.url}/prichexy/studies/{study['job_id']}", wait_until="networkidle")
    assert asked == [], "nothing is shown before somebody opens it"
    page.get_by_text("Image 1 of 2").click()
    if options.get("java_script_enabled", True):
        page.locator("details[open] .compare").wait_for()
    for picture in page.locator("details[open] .side-by-side > figure > .pane > img").all():
        picture.scroll_into_view_if_needed()
        picture.evaluate("image => image.decode()")
    return page, asked


def test_orthanc_keeps_the_pictures_beside_the_study_and_gives_them_to_operators(
    orthanc: PluginOrthanc,
) -> None:
    [study] = orthanc.studies()
    kept = orthanc.get(f"/studies/{study['study_id']}/attachments").json()
    assert len(kept) == 2 * (1 + len(IMAGE_PARTS))
    path = f"/prichexy/studies/{study['job_id']}/image-2-difference.jpg"
    answer = orthanc.get(path)
    assert (answer.status_code, answer.content) == (200, _drawn().pictures[3])
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert "no-store" in answer.headers["Cache-Control"]
    assert orthanc.ask("GET", path, auth=("worker", orthanc.worker_password)).status_code == 403
    assert orthanc.ask("GET", path, anonymous=True).status_code == 401


def test_one_image_is_opened_and_only_its_pictures_are_asked_for(
    orthanc: PluginOrthanc, browser: Browser
) -> None:
    page, asked = opened(browser, orthanc)
    parts = {re.sub(r".*/", "", url) for url in asked}
    assert parts == {f"image-1-{part}.jpg" for part in IMAGE_PARTS}
    page.context.close()
    [study] = orthanc.studies()
    told = orthanc.get(f"/prichexy/studies/{study['job_id']}").text
    assert told.count("Somebody looked at a picture of an original.") == 1, "however many at once"


def test_the_line_between_original_and_anonymised_is_moved_by_keyboard(
    orthanc: PluginOrthanc, browser: Browser
) -> None:
    page, _ = opened(browser, orthanc)
    slider = page.locator("details[open]").get_by_label("Line between them")
    slider.focus()

    def hidden_part() -> str:
        clip: str = page.locator("details[open] .over").evaluate(
            "image => getComputedStyle(image).clipPath"
        )
        return clip

    assert hidden_part() == "inset(0px 0px 0px 50%)"
    page.keyboard.press("End")
    assert hidden_part() == "inset(0px 0px 0px 100%)"
    assert slider.get_attribute("aria-valuetext") == "100 % original"
    page.context.close()


def test_all_pictures_are_zoomed_and_moved_together(
    orthanc: PluginOrthanc, browser: Browser
) -> None:
    page, _ = opened(browser, orthanc)
    page.locator("details[open]").get_by_role("slider", name="Zoom").focus()
    page.keyboard.press("End")
    panes = page.locator("details[open] .pane")
    overflows = panes.evaluate_all("all => all.map(one => one.scrollWidth / one.clientWidth)")
    assert all(share == pytest.approx(6, abs=0.2) for share in overflows)
    panes.nth(1).evaluate("pane => { pane.scrollLeft = pane.scrollWidth; }")
    page.wait_for_function(
        "() => [...document.querySelectorAll('details[open] .pane')].every("
        "one => one.scrollLeft > 0.95 * (one.scrollWidth - one.clientWidth))"
    )
    page.context.close()


def test_without_javascript_the_four_pictures_stand_side_by_side_and_open_large(
    orthanc: PluginOrthanc, browser: Browser
) -> None:
    page = logged_in(browser, orthanc.user, orthanc.password, java_script_enabled=False)
    [study] = orthanc.studies()
    page.goto(f"{orthanc.url}/prichexy/studies/{study['job_id']}")
    page.get_by_text("Image 1 of 2").click()
    box = page.locator("details[open]")
    assert box.get_by_role("img").count() == len(IMAGE_PARTS)
    assert box.get_by_role("slider").count() == 0
    box.get_by_role("link", name=re.compile("Large.*Difference, image 1")).click()
    page.wait_for_url("**/image-1-difference.jpg")
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_an_opened_image_can_be_used_by_everybody(
    orthanc: PluginOrthanc, browser: Browser, viewport: Any, scheme: Any
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page, _ = opened(browser, orthanc, viewport=viewport, color_scheme=scheme)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    found = axe.run(page).response["violations"]
    assert [one["id"] for one in found if one["impact"] in SEVERE] == []
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= viewport["width"]
    page.reload()
    assert complaints == [], "no policy is broken"
    page.context.close()


def test_a_page_that_was_open_meanwhile_shows_all_of_a_study_that_ended(
    orthanc: PluginOrthanc, browser: Browser
) -> None:
    [study] = orthanc.studies()
    job = study["job_id"]
    path = f"/prichexy/studies/{job}"
    assert orthanc.submit(f"{path}/retry", {}).status_code == 303
    page = logged_in(browser, orthanc.user, orthanc.password)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(f"{orthanc.url}{path}?note=retried")
    page.get_by_text("goes its way once more").wait_for()
    message = StudyMessage(job, study["study_id"], revision=2)
    asks = report_of(message, State.PROCESSING).to_json()
    attempt = orthanc.post_as_worker("/reports", asks).json()["attempt"]
    found = _drawn()
    for number in (1, 2):
        shown = ImagePictures(job, 2, attempt, number, 2, found.figures, found.pictures)
        assert orthanc.post_as_worker("/images", shown.to_json()).json()["proceed"]
    figures = {"images_shown": 2.0, "text_markers_kept": 1.0}
    end = report_of(
        message, State.EXPORTED, attempt=attempt, measures=figures, durations={"deform": 1.0}
    )
    assert orthanc.post_as_worker("/reports", end.to_json()).json()["proceed"]
    page.get_by_role("heading", name="Where the time went").wait_for()
    page.get_by_role("heading", name="Measured on the result").wait_for()
    page.get_by_role("heading", name="The 2 images before and after").wait_for()
    assert page.get_by_text("goes its way once more").count() == 0
    page.get_by_text("Image 1 of 2").click()
    page.locator("details[open]").get_by_role("slider", name="Zoom").wait_for()
    assert page.get_by_role("button", name="Stop updating").count() == 0
    assert complaints == []
    page.context.close()
