"""The quarantine desk in a real browser: without a script, by pointer, by keyboard alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
import pytest
from pydicom.uid import generate_uid

from prichexy_testing.browsers import logged_in, running_browser
from prichexy_testing.dicoms import radiograph_dataset, write
from prichexy_testing.plugin_fakes import announcement_of, report_of
from prichexy_testing.plugin_servers import PluginOrthanc, running_plugin_orthanc
from prichexy_testing.servers import free_port, wait_until
from prichexy_worker.contract import WHOLE_SIDE, ImageInDoubt, Reason, State, StudyMessage

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.orthanc, pytest.mark.browser]

#: Each test that decides over a study has one of its own.
STUDIES: Final = 5
ROWS, COLUMNS = 2400, 2000
FOUND: Final = ((100, 200, 700, 300), (1200, 1500, 1500, 1900))
PHONE: Final = {"width": 360, "height": 740}
DESK: Final = {"width": 1280, "height": 900}
SEVERE: Final = {"serious", "critical"}


@pytest.fixture(scope="module")
def orthanc() -> Iterator[PluginOrthanc]:
    """An Orthanc with studies in quarantine, each with an image in doubt."""
    broker = {"Broker": {"Url": f"redis://127.0.0.1:{free_port()}/0"}}
    seen = (round(COLUMNS * WHOLE_SIDE / ROWS), WHOLE_SIDE)
    slope = np.tile(np.arange(200, dtype=np.uint8), (240, 1))
    _, png = cv2.imencode(".png", cv2.resize(slope, seen))
    with running_plugin_orthanc(broker) as server:
        wait_until(lambda: bool(server.health()["ledger"] == "ok"), what="the ledger is open")
        for number in range(STUDIES):
            uids = {
                keyword: generate_uid(entropy_srcs=[keyword, str(number)])
                for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
            }
            content = write(radiograph_dataset(identity=uids))
            assert server.post("/instances", content).is_success
        server.wait_for({"pending": STUDIES})
        server.post_as_worker("/workers", announcement_of().to_json())
        for study in server.studies():
            message = StudyMessage(study["job_id"], study["study_id"], revision=1)
            server.post_as_worker("/reports", report_of(message, State.PROCESSING).to_json())
            image = ImageInDoubt(
                message.job_id, 1, 1, 1, "a" * 64, ROWS, COLUMNS, FOUND, png.tobytes()
            )
            assert server.post_as_worker("/doubts", image.to_json()).json()["proceed"]
            held = report_of(message, State.QUARANTINED, Reason.BURNED_IN_TEXT, attempt=1)
            assert server.post_as_worker("/reports", held.to_json()).json()["proceed"]
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as running:
        yield running


def on_desk(orthanc: PluginOrthanc, browser: Browser, **options: Any) -> tuple[Page, str]:
    """Open the desk; give the page and the job that it shows."""
    page = logged_in(browser, orthanc.user, orthanc.password, **{"viewport": DESK, **options})
    page.goto(f"{orthanc.url}/prichexy/desk")
    return page, job_on(page)


def job_on(page: Page) -> str:
    action = page.locator("form.desk").get_attribute("action") or ""
    return action.split("/")[-2]


def decided(orthanc: PluginOrthanc, job: str) -> dict[str, Any]:
    """Give the details of the line of the audit trail that tells of the decision."""
    table = orthanc.get(f"/prichexy/audit.csv?job={job}").text
    [line] = [line for line in table.splitlines() if "image_decided" in line]
    return dict(re.findall(r'""(\w+)"": ""([^"]*)""', line))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("script", [True, False], ids=["script", "plain"])
def test_the_desk_is_accessible_and_fits(
    orthanc: PluginOrthanc, browser: Browser, viewport: Any, scheme: Any, script: bool
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page, _ = on_desk(orthanc, browser, viewport=viewport, color_scheme=scheme)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    if not script:
        page.route(
            "**/desk.js", lambda route: route.fulfill(body="", content_type="text/javascript")
        )
    page.reload()
    page.locator("summary").first.click()
    width = page.evaluate("document.scrollingElement.scrollWidth")
    severe = [
        (found["id"], [node["html"][:200] for node in found["nodes"][:3]])
        for found in axe.run(page).response["violations"]
        if found["impact"] in SEVERE
    ]
    page.context.close()
    assert severe == []
    assert width <= viewport["width"]
    assert complaints == []


def test_a_study_is_released_without_javascript_and_the_next_is_shown(
    orthanc: PluginOrthanc, browser: Browser
) -> None:
    page, job = on_desk(orthanc, browser, java_script_enabled=False)
    page.get_by_label("Left of box 1 of image 1, in pixels").fill("90")
    page.get_by_label("What to do with box 2 of image 1").select_option("keep")
    page.get_by_text("Draw another box").click()
    for side, value in {"Left": 0, "Top": 5, "Width": 2000, "Height": 10}.items():
        page.get_by_label(f"{side} of box 3 of image 1, in pixels").fill(str(value))
    page.get_by_label("What to do with box 3 of image 1").select_option("erase")
    page.get_by_label("I have looked at all of image 1").check()
    page.get_by_label("what was found and is not erased is no text", exact=False).check()
    page.get_by_role("button", name="Release").click()
    page.wait_for_url(lambda url: "note=released" in url)
    assert job_on(page) != job
    page.context.close()
    assert decided(orthanc, job) == {
        "erase": "90,200,690,300 0,5,2000,15",
        "image": "a" * 64,
        "keep": "1200,1500,1500,1900",
    }
    assert orthanc.trail(job)[-1] == "pending"


def test_boxes_are_moved_sized_drawn_and_left_alone_by_pointer(
    orthanc: PluginOrthanc, browser: Browser
) -> None:
    page, job = on_desk(orthanc, browser)
    sheet = page.locator("svg.whole")
    sheet.scroll_into_view_if_needed()
    frame = sheet.bounding_box()
    assert frame is not None
    scale = min(frame["width"] / COLUMNS, frame["height"] / ROWS)
    left = frame["x"] + (frame["width"] - scale * COLUMNS) / 2
    top = frame["y"] + (frame["height"] - scale * ROWS) / 2

    def drag(start: tuple[int, int], end: tuple[int, int]) -> None:
        for step, (x, y) in enumerate((start, end)):
            page.mouse.move(left + x * scale, top + y * scale, steps=5)
            (page.mouse.up if step else page.mouse.down)()

    def box(number: int) -> list[int]:
        names = [f"1.{number}.{side}" for side in "xywh"]
        return [int(page.locator(f'[name="{name}"]').input_value()) for name in names]

    drag((300, 250), (500, 650))
    moved = box(1)
    drag((1498, 1898), (1700, 2000))
    sized = box(2)
    drag((200, 1000), (600, 1400))
    drawn = box(3)
    near = COLUMNS / 100
    assert np.abs(np.subtract(moved, [300, 600, 600, 100])).max() < near
    assert sized[:2] == [1200, 1500]
    assert np.abs(np.subtract(sized[2:], [500, 500])).max() < near
    assert np.abs(np.subtract(drawn, [200, 1000, 400, 400])).max() < near
    page.get_by_label("I have looked at all of image 1").check()
    page.get_by_label("named all that is to be erased", exact=False).check()
    page.get_by_role("button", name="Release").click()
    page.wait_for_url(lambda url: "note=released" in url)
    page.context.close()
    erased = [list(map(int, one.split(","))) for one in decided(orthanc, job)["erase"].split()]
    assert erased == [[x, y, x + w, y + h] for x, y, w, h in (moved, sized, drawn)]


def test_a_study_is_decided_over_by_keyboard_alone(
    orthanc: PluginOrthanc, browser: Browser
) -> None:
    page, job = on_desk(orthanc, browser)
    skipped = job
    page.keyboard.press("s")
    page.wait_for_url(lambda url: "after=" in url)
    job = job_on(page)
    assert job != skipped
    page.locator('rect[data-for="1.1"]').focus()
    for key in ("ArrowRight", "Shift+ArrowDown", "Tab", "l"):
        page.keyboard.press(key)
    page.get_by_label("I have looked at all of image 1").focus()
    page.keyboard.press("Space")
    # From the fields a key is a letter; from the button it is a key again.
    page.get_by_label("text that stays in them names nobody", exact=False).focus()
    page.keyboard.press("Space")
    page.locator("h1").click()
    page.keyboard.press("r")
    assert page.evaluate("document.activeElement.id") == "release-button"
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "note=released" in url)
    page.context.close()
    step = COLUMNS // 200
    left, top, right, bottom = FOUND[0]
    moved = (left + step, top, right + step, bottom + step)
    assert decided(orthanc, job)["erase"] == ",".join(map(str, moved))
    assert decided(orthanc, job)["keep"] == "1200,1500,1500,1900"


def test_an_image_is_zoomed_by_keyboard_and_its_boxes_stay_on_what_they_name(
    orthanc: PluginOrthanc, browser: Browser
) -> None:
    page, _ = on_desk(orthanc, browser)
    place = """() => {
      const image = document.querySelector("svg.whole image").getBoundingClientRect();
      const box = document.querySelector('rect[data-for="1.2"]').getBoundingClientRect();
      const pane = document.querySelector(".desk .pane");
      const parts = [box.x - image.x, box.y - image.y, box.right - image.x, box.bottom - image.y];
      const inside = parts.map((part, at) => part / (at % 2 ? image.height : image.width));
      return {inside, width: image.width, larger: pane.scrollHeight / pane.clientHeight};
    }"""
    before = page.evaluate(place)
    zoom = page.get_by_role("slider", name="Zoom of image 1")
    zoom.focus()
    page.keyboard.press("End")
    assert zoom.get_attribute("aria-valuetext") == "6 times"
    after = page.evaluate(place)
    assert after["width"] == pytest.approx(6 * before["width"], rel=0.02)
    assert after["width"] > COLUMNS, "each pixel can be seen"
    assert after["larger"] == pytest.approx(6, rel=0.05)
    shares = np.divide(FOUND[1], (COLUMNS, ROWS) * 2).tolist()
    assert before["inside"] == pytest.approx(shares, abs=0.005)
    assert after["inside"] == pytest.approx(shares, abs=0.005)
    # Moved by the pointer where the image is zoomed.
    box = page.locator('rect[data-for="1.2"]')
    box.evaluate("box => box.scrollIntoView({block: 'center', inline: 'center'})")
    frame = box.bounding_box()
    assert frame is not None
    x, y = frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - after["width"] / 20, y, steps=4)
    page.mouse.up()
    moved = int(page.locator('[name="1.2.x"]').input_value())
    assert moved == pytest.approx(FOUND[1][0] - COLUMNS / 20, abs=5)
    page.context.close()


def test_without_javascript_an_image_opens_large_in_another_tab(
    orthanc: PluginOrthanc, browser: Browser
) -> None:
    page, job = on_desk(orthanc, browser, java_script_enabled=False)
    page.get_by_label("I have looked at all of image 1").check()
    with page.context.expect_page() as opened:
        page.get_by_role("link", name=re.compile("Large.*image 1")).click()
    opened.value.wait_for_url(f"**/studies/{job}/whole-1.png")
    assert page.get_by_label("I have looked at all of image 1").is_checked()
    page.context.close()
    answer = orthanc.get(f"/prichexy/studies/{job}/whole-1.png")
    seen = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert seen is not None
    assert max(seen.shape) == WHOLE_SIDE


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_enter_on_a_box_goes_to_what_is_to_be_done_with_it(
    orthanc: PluginOrthanc, browser: Browser, key: str
) -> None:
    page, _ = on_desk(orthanc, browser)
    box = page.locator('rect[data-for="1.2"]')
    hint = page.locator(f"#{box.get_attribute('aria-describedby')}")
    assert "Enter goes to what is to be done with it" in hint.inner_text()
    box.press(key)
    assert page.evaluate("document.activeElement.name") == "1.2.do"
    page.context.close()


def test_a_box_that_is_left_alone_goes_back_to_where_it_was_found_and_stays_there(
    orthanc: PluginOrthanc, browser: Browser
) -> None:
    page, _ = on_desk(orthanc, browser)
    left = page.get_by_label("Left of box 1 of image 1, in pixels")
    box = page.locator('rect[data-for="1.1"]')
    left.fill("1700")
    assert box.get_attribute("x") == "1700"
    page.get_by_label("What to do with box 1 of image 1").select_option("keep")
    assert (left.input_value(), box.get_attribute("x")) == ("100", "100")
    assert not left.is_editable()
    box.press("ArrowRight")
    assert (left.input_value(), box.get_attribute("x")) == ("100", "100")
    box.press("e")
    assert left.is_editable()
    page.context.close()


def test_a_finger_scrolls_over_an_image_until_it_is_said_that_it_draws(
    orthanc: PluginOrthanc, browser: Browser
) -> None:
    page, _ = on_desk(orthanc, browser, viewport=PHONE, is_mobile=True, has_touch=True)
    sheet = page.locator("svg.whole").first
    devtools = page.context.new_cdp_session(page)

    def swipe() -> float:
        """Move a finger upwards over the image; give by how much the page went."""
        sheet.evaluate("image => image.scrollIntoView({block: 'center'})")
        frame = sheet.bounding_box()
        assert frame is not None
        before = page.evaluate("scrollY")
        x, y = frame["x"] + frame["width"] * 0.6, frame["y"] + frame["height"] * 0.5
        for step in range(12):
            point = {"x": x + step, "y": y - 10 * step}
            kind = "touchMove" if step else "touchStart"
            devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
        devtools.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        # The page scrolls when it is drawn next.
        page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
        return float(page.evaluate("scrollY")) - before

    third = page.locator('rect[data-for="1.3"]')
    assert swipe() > 0
    assert third.count() == 0
    assert page.locator('[name="1.3.do"]').input_value() == "leave"
    page.get_by_label("Draw and move boxes by touch", exact=False).check()
    assert swipe() == 0
    assert third.get_attribute("class") == "erase"
    page.context.close()


def test_after_back_from_a_refusal_the_boxes_stand_as_the_fields_do(
    orthanc: PluginOrthanc, browser: Browser
) -> None:
    page, job = on_desk(orthanc, browser)
    page.get_by_text("Draw another box").click()
    for side, value in {"Left": 5, "Top": 6, "Width": 50, "Height": 60}.items():
        page.get_by_label(f"{side} of box 3 of image 1, in pixels").fill(str(value))
    page.get_by_label("What to do with box 3 of image 1").select_option("erase")
    page.get_by_label("What to do with box 2 of image 1").select_option("keep")
    page.get_by_label("I have looked at all of image 1").check()
    page.get_by_label("named all that is to be erased", exact=False).check()
    page.get_by_role("button", name="Release").click()
    page.wait_for_url(lambda url: url.endswith("/release"))
    page.go_back(wait_until="load")
    assert job_on(page) == job
    assert page.locator('[name="1.3.x"]').input_value() == "5"
    drawn = page.locator('rect[data-for="1.3"]')
    drawn.wait_for()
    assert (drawn.get_attribute("x"), drawn.get_attribute("class")) == ("5", "erase")
    assert page.locator('rect[data-for="1.2"]').get_attribute("class") == "keep"
    assert page.locator('[name="1.3.x"]').is_visible()
    page.context.close()


@pytest.mark.parametrize("script", [True, False], ids=["script", "plain"])
def test_enter_in_a_field_sends_nothing(
    orthanc: PluginOrthanc, browser: Browser, script: bool
) -> None:
    page, job = on_desk(orthanc, browser, java_script_enabled=script)
    posted: list[str] = []
    page.on("request", lambda asked: posted.append(asked.url) if asked.method == "POST" else None)
    seen = page.get_by_label("I have looked at all of image 1")
    why = page.get_by_label("named all that is to be erased", exact=False)
    seen.check()
    why.check()
    for field in (page.get_by_label("Left of box 1 of image 1, in pixels"), seen, why):
        field.press("Enter")
    page.reload()
    assert posted == []
    assert job_on(page) == job
    page.context.close()


def test_what_is_decided_and_not_sent_is_not_lost_unasked(
    orthanc: PluginOrthanc, browser: Browser
) -> None:
    page, job = on_desk(orthanc, browser)
    asked: list[str] = []
    answers = [False, True]

    def answer(dialog: Any) -> None:
        asked.append(dialog.type)
        (dialog.accept if answers[len(asked) - 1] else dialog.dismiss)()

    page.on("dialog", answer)
    page.locator('rect[data-for="1.1"]').press("ArrowRight")
    with page.expect_event("dialog"):
        page.keyboard.press("s")
    assert asked == ["beforeunload"]
    assert page.locator('[name="1.1.x"]').input_value() == str(100 + COLUMNS // 200)
    page.keyboard.press("s")
    page.wait_for_url(lambda url: "after=" in url)
    assert asked == ["beforeunload"] * 2
    assert job_on(page) != job
    # Nothing is asked where nothing was decided.
    page.keyboard.press("a")
    page.goto(f"{orthanc.url}/prichexy/desk")
    assert len(asked) == 2
    page.context.close()


def test_image_and_decision_stand_side_by_side(orthanc: PluginOrthanc, browser: Browser) -> None:
    page, _ = on_desk(orthanc, browser)
    sheet = page.locator("svg.whole")
    sheet.evaluate("image => image.scrollIntoView({block: 'end'})")
    image, button = sheet.bounding_box(), page.locator("#release-button").bounding_box()
    page.context.close()
    assert image is not None
    assert button is not None
    assert image["x"] + image["width"] <= button["x"]
    assert button["y"] >= 0
    assert button["y"] + button["height"] <= DESK["height"]


def test_keys_that_are_switched_off_do_nothing(orthanc: PluginOrthanc, browser: Browser) -> None:
    page, job = on_desk(orthanc, browser)
    page.get_by_label("Keys are on").uncheck()
    page.locator("h1").click()
    page.keyboard.press("r")
    assert page.evaluate("document.activeElement.id") != "release-button"
    page.reload()
    assert not page.get_by_label("Keys are on").is_checked()
    assert job_on(page) == job
    page.context.close()


def test_a_study_is_turned_away_from_the_desk(orthanc: PluginOrthanc, browser: Browser) -> None:
    page, job = on_desk(orthanc, browser)
    page.keyboard.press("a")
    assert page.evaluate("document.activeElement.id") == "away-reason"
    page.locator("#away-reason").select_option("not_needed")
    page.get_by_role("button", name="Turn away").click()
    page.wait_for_url(lambda url: "note=rejected" in url)
    page.context.close()
    assert orthanc.trail(job)[-1] == "rejected"
