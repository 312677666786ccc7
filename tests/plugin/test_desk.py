"""The quarantine desk: what a person decides there, and what that does to the ledger."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from prichexy_plugin.chain import Deed, Line
from prichexy_plugin.dashboard.http import Request, Response
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.pictures import OrthancPictures
from prichexy_plugin.security import Role, Roles
from prichexy_plugin.studies import OrthancStudies
from prichexy_testing.dashboard_reader import FakeGateway, Page, Reader
from prichexy_testing.fake_orthanc import FakeOrthanc, orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, announcement_of, report_of
from prichexy_worker.contract import (
    API_ROOT,
    MOST_PICTURES,
    REQUEST_HEADER,
    WHOLE_PICTURE_BYTES,
    WHOLE_SIDE,
    Available,
    Errand,
    ImageInDoubt,
    Looked,
    Reason,
    State,
    StudyMessage,
)

ROLES = Roles({"vera": Role.VIEWER, "omar": Role.OPERATOR, "ada": Role.ADMINISTRATOR})
PNG = b"\x89PNG\r\n\x1a\n"
DIGESTS = ("a" * 64, "b" * 64)
FOUND = ((10, 20, 110, 60), (300, 400, 420, 440))


@pytest.fixture
def orthanc() -> FakeOrthanc:
    """An Orthanc that holds the studies of these tests."""
    orthanc = FakeOrthanc()
    for name in "abc":
        orthanc.store({}, study=name)
    return orthanc


@pytest.fixture
def site(ledger: Ledger, clock: FakeClock, orthanc: FakeOrthanc) -> Site:
    return Site(
        FakeGateway(ledger),
        problems=(),
        worker_user="worker",
        clock=clock,
        roles=ROLES,
        pictures=OrthancPictures(orthanc),
        studies=OrthancStudies(orthanc),
    )


@pytest.fixture
def omar(site: Site) -> Reader:
    return Reader(site, "omar")


def _claimed(ledger: Ledger, clock: FakeClock, name: str) -> tuple[StudyMessage, int]:
    """Let a study arrive and a worker claim it; give its message and the number of the claim."""
    ledger.note({orthanc_id(name): clock()}, cursor=1)
    ledger.settle(orthanc_id(name), Decision(None), content=name, instances=2)
    return _claim(ledger, orthanc_id(name))


def _claim(ledger: Ledger, study_id: str) -> tuple[StudyMessage, int]:
    message = next(one for one in ledger.outbox() if one.study_id == study_id)
    ledger.sent(message)
    return message, ledger.report(report_of(message, State.PROCESSING)).attempt


def _image(message: StudyMessage, attempt: int, number: int = 1) -> ImageInDoubt:
    return ImageInDoubt(
        message.job_id,
        message.revision,
        attempt,
        number,
        digest=DIGESTS[number - 1],
        rows=500,
        columns=600,
        boxes=FOUND if number == 1 else (),
        picture=_png(600, 500, number),
    )


def _png(columns: int, rows: int, number: int) -> bytes:
    """Give the beginning of a PNG file of this size."""
    return PNG + b"\0\0\0\rIHDR" + struct.pack(">II", columns, rows) + bytes([number])


def _doubt(site: Site, image: ImageInDoubt, user: str = "worker") -> Response:
    pair = base64.b64encode(f"{user}:x".encode()).decode()
    headers = {REQUEST_HEADER.lower(): "3", "authorization": f"Basic {pair}"}
    path = API_ROOT.removeprefix("/prichexy") + "/doubts"
    body = json.dumps(image.to_json()).encode()
    return site.answer(_request(path, headers, body))


def _request(path: str, headers: Mapping[str, str], body: bytes) -> Any:

    return Request("POST", path, headers=headers, body=body)


def _quarantine(
    site: Site,
    ledger: Ledger,
    clock: FakeClock,
    name: str = "a",
    reason: Reason = Reason.BURNED_IN_TEXT,
    images: int = 1,
) -> str:
    """Let a study end in quarantine with images in doubt; give its job."""
    message, attempt = _claimed(ledger, clock, name)
    for number in range(1, images + 1):
        assert _doubt(site, _image(message, attempt, number)).status == 200
    assert ledger.report(report_of(message, State.QUARANTINED, reason, attempt=attempt)).proceed
    clock.move(60)
    return message.job_id


def _form(page: Page, **fields: str) -> dict[str, str]:
    hidden = {name: page.fields[name] for name in ("token", "seen", "place", "filter")}
    return {**hidden, "1.seen": "yes", "why": Reason.RELEASED_ERASED.value, **fields}


def _boxes(**more: str) -> dict[str, str]:
    """Give the fields of the boxes as the page shows them at first."""
    fields = {}
    for number, (left, top, right, bottom) in enumerate(FOUND, start=1):
        sides = {"x": left, "y": top, "w": right - left, "h": bottom - top}
        fields |= {f"1.{number}.{side}": str(value) for side, value in sides.items()}
        fields[f"1.{number}.do"] = "erase"
    return {**fields, **{name.replace("_", "."): value for name, value in more.items()}}


def _release(reader: Reader, job: str, fields: Mapping[str, str]) -> Response:
    page = reader.page(f"/desk/{job}")
    return reader.post(f"/desk/{job}/release", _form(page, **fields))


def _next_message(ledger: Ledger, job: str) -> StudyMessage:
    return next(message for message in ledger.outbox() if message.job_id == job)


def _decided(ledger: Ledger, job: str) -> list[Line]:
    return [line for line in ledger.lines(job_id=job) if line.deed == Deed.IMAGE_DECIDED]


# --- Release ---------------------------------------------------------------------------------


def test_a_released_study_goes_to_a_worker_with_what_was_decided_over_each_image(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _quarantine(site, ledger, clock)
    new = {"1.3.do": "erase", "1.3.x": "0", "1.3.y": "5", "1.3.w": "600", "1.3.h": "4"}
    fields = _boxes(**{"1_1_x": "12", "1_2_do": "keep"}) | new
    answer = _release(omar, job, {**fields, "why": Reason.RELEASED_NO_TEXT.value})
    assert answer.status == 303
    assert "note=released" in answer.headers["Location"]
    [message] = ledger.outbox()
    assert (message.job_id, message.revision) == (job, 2)
    erase = ((12, 20, 112, 60), (0, 5, 600, 9))
    assert message.looked == (Looked(DIGESTS[0], erase, (FOUND[1],)),)
    study = ledger.study(job)
    assert study is not None
    assert study.state is State.PENDING


def test_the_trail_says_who_decided_what_over_which_image_and_why(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _quarantine(site, ledger, clock)
    _release(omar, job, _boxes())
    [line] = _decided(ledger, job)
    assert (line.actor, line.reason) == ("user omar", Reason.RELEASED_ERASED.value)
    assert line.details == {
        "revision": 1,
        "image": DIGESTS[0],
        "erase": "10,20,110,60 300,400,420,440",
        "keep": "",
    }
    step = ledger.lines(job_id=job)[-1]
    assert (step.from_state, step.to_state, step.actor) == ("quarantined", "pending", "user omar")
    assert (step.reason, step.details["images_decided"]) == (Reason.RELEASED_ERASED.value, 1)


def test_a_second_click_and_a_page_that_is_out_of_date_change_nothing(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _quarantine(site, ledger, clock)
    form = _form(omar.page(f"/desk/{job}"), **_boxes())
    locations = [omar.post(f"/desk/{job}/release", form).headers["Location"] for _click in range(3)]
    assert ["note=released" in one for one in locations] == [True, False, False]
    assert ["note=moved" in one for one in locations] == [False, True, True]
    assert len(_decided(ledger, job)) == 1
    message, attempt = _claim(ledger, orthanc_id("a"))
    _doubt(site, _image(message, attempt))
    ledger.report(report_of(message, State.QUARANTINED, Reason.BURNED_IN_TEXT, attempt=attempt))
    assert "note=moved" in omar.post(f"/desk/{job}/release", form).headers["Location"]
    assert len(_decided(ledger, job)) == 1


@pytest.mark.parametrize("reason", [one for one in Reason if one is not Reason.BURNED_IN_TEXT])
def test_no_other_reason_can_ever_be_released(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock, reason: Reason
) -> None:
    job = _quarantine(site, ledger, clock, reason=reason)
    page = omar.page(f"/desk/{job}")
    assert "cannot be released" in page.text
    answer = omar.post(f"/desk/{job}/release", _form(page, **_boxes()))
    assert "note=moved" in answer.headers["Location"]
    study = ledger.study(job)
    assert study is not None
    assert (study.state, study.revision) == (State.QUARANTINED, 1)
    assert not ledger.release(
        job,
        revision=1,
        actor="user omar",
        reason=Reason.RELEASED_NO_TEXT,
        looked=(Looked(DIGESTS[0]),),
    )


@pytest.mark.parametrize(
    "looked",
    [
        (),
        (Looked(DIGESTS[0]),),
        (Looked(DIGESTS[0]), Looked("c" * 64)),
        (Looked(DIGESTS[0]), Looked(DIGESTS[1]), Looked("c" * 64)),
        (Looked(DIGESTS[0]), Looked(DIGESTS[1]), Looked(DIGESTS[1])),
    ],
    ids=["of none", "of one", "of another", "of one more", "twice"],
)
def test_a_decision_is_over_each_of_the_images_in_doubt_and_no_other(
    site: Site, ledger: Ledger, clock: FakeClock, looked: tuple[Looked, ...]
) -> None:
    job = _quarantine(site, ledger, clock, images=2)
    values: Any = {"revision": 1, "actor": "user omar", "reason": Reason.RELEASED_NO_TEXT}
    assert not ledger.release(job, looked=looked, **values)
    assert _decided(ledger, job) == []
    both = (Looked(DIGESTS[0]), Looked(DIGESTS[1]))
    assert ledger.release(job, looked=both, **values)
    assert _next_message(ledger, job).looked == both


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"1.seen": "no"}, "looked at all of image 1"),
        ({"why": "because"}, "Say why"),
        ({"why": Reason.NOT_NEEDED.value}, "Say why"),
        ({"1.2.do": "keep"}, "say why"),
        ({"1.1.do": "leave"}, "nothing was chosen"),
        ({"1.1.w": ""}, "a number is missing"),
        ({"1.1.w": "-5"}, "a number is missing"),
        ({"1.1.w": "١"}, "a number is missing"),
        ({"1.1.w": "0"}, "does not lie within"),
        ({"1.1.x": "501"}, "does not lie within"),
        ({"1.1.h": "481"}, "does not lie within"),
        ({"1.3.do": "erase"}, "a number is missing"),
        ({"1.3.do": "keep"}, "nothing was chosen"),
    ],
)
def test_a_form_that_leaves_something_open_changes_nothing(
    site: Site,
    omar: Reader,
    ledger: Ledger,
    clock: FakeClock,
    fields: dict[str, str],
    sentence: str,
) -> None:
    job = _quarantine(site, ledger, clock)
    answer = _release(omar, job, {**_boxes(), **fields})
    assert answer.status == 400
    assert sentence in str(answer.body)
    assert _decided(ledger, job) == []
    study = ledger.study(job)
    assert study is not None
    assert study.state is State.QUARANTINED


def test_a_form_that_leaves_something_open_stands_there_again_as_it_was_sent(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _quarantine(site, ledger, clock)
    drawn = {"1.3.x": "7", "1.3.y": "8", "1.3.w": "9", "1.3.h": "", "1.3.do": "erase"}
    said = {"1.1.x": "33", "1.2.do": "keep", "filter": Reason.BURNED_IN_TEXT.value}
    answer = _release(omar, job, {**_boxes(), **drawn, **said})
    page, html = Page(answer, status=400), str(answer.body)
    assert "Image 1, box 3: a number is missing." in page.text
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    values = {name: page.fields[name] for name in ("1.1.x", "1.3.x", "1.3.h")}
    assert values == {"1.1.x": "33", "1.3.x": "7", "1.3.h": ""}
    assert page.fields["filter"] == Reason.BURNED_IN_TEXT.value
    assert html.count(" checked>") == 3, "the image as looked at, the reason, and the keys"
    assert 'value="keep" selected' in html
    assert "<details open>" in html
    sent = {**page.fields, **_boxes(), **said, **drawn, "1.3.h": "10"}
    again = {**sent, "1.seen": "yes", "why": Reason.RELEASED_NO_TEXT.value}
    assert omar.post(f"/desk/{job}/release", again).status == 303
    assert _next_message(ledger, job).looked[0].erase[-1] == (7, 8, 16, 18)


def test_what_was_said_of_images_of_before_is_not_filled_in(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _quarantine(site, ledger, clock)
    fields = {**_boxes(), "1.1.x": "33", "seen": "0", "why": "because"}
    answer = _release(omar, job, fields)
    assert "1.1.x" in str(answer.body)
    assert 'value="33"' not in str(answer.body)


@pytest.mark.parametrize(("side", "value"), [("x", "0"), ("y", "21"), ("w", "600"), ("h", "")])
def test_what_was_found_can_be_left_alone_only_where_it_stood_on_the_page(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock, side: str, value: str
) -> None:
    job = _quarantine(site, ledger, clock)
    why = {"why": Reason.RELEASED_NAMES_NOBODY.value}
    answer = _release(omar, job, {**_boxes(**{"1_1_do": "keep", f"1_1_{side}": value}), **why})
    assert answer.status == 400
    assert "it was moved" in str(answer.body)
    assert _decided(ledger, job) == []
    _release(omar, job, {**_boxes(**{"1_1_do": "keep"}), **why})
    assert _next_message(ledger, job).looked[0].keep == (FOUND[0],)


def test_what_was_decided_before_stands_on_the_page_again_and_holds(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _quarantine(site, ledger, clock)
    _release(omar, job, {**_boxes(**{"1_2_do": "keep"}), "why": Reason.RELEASED_NO_TEXT.value})
    message, attempt = _claim(ledger, orthanc_id("a"))
    later = replace(_image(message, attempt), boxes=((1, 1, 9, 9),))
    assert _doubt(site, later).status == 200
    ledger.report(report_of(message, State.QUARANTINED, Reason.BURNED_IN_TEXT, attempt=attempt))
    page = omar.page(f"/desk/{job}")
    fields = {
        name: value
        for name, value in page.fields.items()
        if name.startswith(("1.1.", "1.2.", "1.3."))
    }
    assert [fields[f"1.{number}.x"] for number in (1, 2, 3)] == ["1", "10", "300"]
    answer = _release(omar, job, {**fields, "why": Reason.RELEASED_NO_TEXT.value})
    assert "note=released" in answer.headers["Location"]
    [looked] = _next_message(ledger, job).looked
    assert looked == Looked(DIGESTS[0], ((1, 1, 9, 9), FOUND[0]), (FOUND[1],))


def test_a_decision_holds_for_its_image_when_others_come_in_or_it_is_tried_again(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _quarantine(site, ledger, clock)
    _release(omar, job, _boxes())
    looked = _next_message(ledger, job).looked
    study_id = orthanc_id("a")
    ledger.note({study_id: clock()}, cursor=2)
    ledger.settle(study_id, Decision(None), content="more", instances=3)
    assert (_next_message(ledger, job).revision, _next_message(ledger, job).looked) == (3, looked)
    message, attempt = _claim(ledger, study_id)
    ledger.report(report_of(message, State.EXPORTED, attempt=attempt))
    assert ledger.again(job, revision=3, actor="user omar")
    assert _next_message(ledger, job).looked == looked


def test_a_lost_message_is_sent_again_with_the_decision(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:

    job = _quarantine(site, ledger, clock)
    _release(omar, job, _boxes())
    message = _next_message(ledger, job)
    ledger.sent(message)
    clock.move(3 * 3600)
    assert ledger.recall(timedelta(hours=2)) == 1
    assert _next_message(ledger, job) == message


def test_images_of_an_attempt_that_lost_its_claim_are_not_kept(
    site: Site, ledger: Ledger, clock: FakeClock, orthanc: FakeOrthanc
) -> None:
    message, attempt = _claimed(ledger, clock, "a")
    ledger.report(report_of(message, State.PROCESSING, worker_id="worker-2"))
    assert json.loads(_doubt(site, _image(message, attempt)).body)["proceed"] is False
    assert orthanc.attachments == {}
    later = _image(message, attempt + 1)
    assert json.loads(_doubt(site, later).body)["proceed"] is True
    ledger.report(report_of(message, State.QUARANTINED, Reason.BURNED_IN_TEXT, attempt=attempt + 1))
    assert [image.digest for image in ledger.in_doubt(message.job_id)] == [DIGESTS[0]]


def test_images_in_doubt_come_from_the_workers_user_alone(
    site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    message, attempt = _claimed(ledger, clock, "a")
    assert _doubt(site, _image(message, attempt), user="ada").status == 403


def test_a_picture_that_orthanc_does_not_keep_is_asked_for_again(
    site: Site, ledger: Ledger, clock: FakeClock, orthanc: FakeOrthanc
) -> None:
    message, attempt = _claimed(ledger, clock, "a")
    orthanc.broken = True
    assert _doubt(site, _image(message, attempt)).status == 503


def test_a_picture_too_small_to_be_read_is_not_decided_over(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    message, attempt = _claimed(ledger, clock, "a")
    large = replace(_image(message, attempt), rows=3000, columns=2500)
    for picture in (_png(853, 1024, 1), _png(1892, 2271, 1), PNG, PNG + b"\0" * 99):
        answer = _doubt(site, replace(large, picture=picture))
        assert (answer.status, "too small" in str(answer.body)) == (422, True)
    assert ledger.in_doubt(message.job_id) == ()
    ledger.report(report_of(message, State.QUARANTINED, Reason.BURNED_IN_TEXT, attempt=attempt))
    page = omar.page(f"/desk/{message.job_id}")
    assert "It cannot be released" in page.text


def test_a_picture_as_large_as_the_search_sees_it_is_taken_whatever_it_takes(
    site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    message, attempt = _claimed(ledger, clock, "a")
    large = replace(_image(message, attempt), rows=3000, columns=2500)
    begin = _png(1893, WHOLE_SIDE, 1)
    for size, status in ((WHOLE_PICTURE_BYTES, 200), (WHOLE_PICTURE_BYTES + 8, 422)):
        picture = begin + bytes(size - len(begin))
        assert _doubt(site, replace(large, picture=picture)).status == status


def test_nobody_decides_over_images_of_which_the_pictures_are_deleted(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _quarantine(site, ledger, clock)
    page = omar.page(f"/desk/{job}")
    ledger.begin_pictures_disposal(orthanc_id("a"))
    ledger.end_pictures_disposal(orthanc_id("a"))
    assert "cannot be released" in omar.page(f"/desk/{job}").text
    answer = omar.post(f"/desk/{job}/release", _form(page, **_boxes()))
    assert "note=moved" in answer.headers["Location"]


# --- The page --------------------------------------------------------------------------------


def test_the_whole_picture_is_shown_to_operators_while_somebody_must_decide(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _quarantine(site, ledger, clock)
    address = f"/studies/{job}/whole-1.png"
    answer = omar.ask(address)
    assert (answer.status, answer.mime, answer.body) == (200, "image/png", _png(600, 500, 1))
    assert [line.actor for line in ledger.lines() if line.deed == Deed.PICTURES_SHOWN] == [
        "user omar"
    ]
    assert f"../../prichexy{address}" in omar.page(f"/desk/{job}").links
    assert omar.ask(f"/studies/{job}/whole-2.png").status == 404
    assert Reader(site, "vera").ask(address).status == 403
    _release(omar, job, _boxes())
    assert omar.ask(address).status == 404


def test_a_look_of_while_the_clock_was_ahead_hides_no_later_one(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _quarantine(site, ledger, clock)
    clock.move(86_400)
    for moved in (0, 1800, -86_400, 1800):
        clock.move(moved)
        assert omar.ask(f"/studies/{job}/whole-1.png").status == 200
    assert sum(line.deed == Deed.PICTURES_SHOWN for line in ledger.lines()) == 2


def test_the_desk_is_for_operators(site: Site, ledger: Ledger, clock: FakeClock) -> None:
    job = _quarantine(site, ledger, clock)
    vera = Reader(site, "vera")
    assert {vera.ask(path).status for path in ("/desk", f"/desk/{job}")} == {403}
    assert vera.post(f"/desk/{job}/release", {"token": "1.a"}).status == 403
    assert Reader(site).ask("/desk").status == 403
    assert Reader(site, "ada").ask("/desk").status == 200
    assert "prichexy/desk" not in " ".join(vera.page("/studies").links)


def test_a_form_without_the_pages_token_is_refused(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job, other = _quarantine(site, ledger, clock), _quarantine(site, ledger, clock, "b")
    page = omar.page(f"/desk/{job}")
    form = _form(page, **_boxes())
    assert omar.post(f"/desk/{job}/release", {**form, "token": "1.x"}).status == 403
    assert omar.post(f"/desk/{other}/release", form).status == 403
    assert Reader(site, "ada").post(f"/desk/{job}/release", form).status == 403
    evil = {"origin": "https://evil.example", "host": "gateway"}
    assert omar.post(f"/desk/{job}/release", form, evil).status == 403
    assert _decided(ledger, job) == []


def test_one_study_after_another_the_oldest_first(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    jobs = [_quarantine(site, ledger, clock, name) for name in "abc"]

    def shown(page: Page) -> str:
        links = [link for link in page.links if link.endswith(("/reject", "/release"))]
        return links[0].split("/")[-2] if links else ""

    first = omar.page("/desk")
    assert shown(first) == jobs[0]
    assert "3 studies wait" in first.text
    skip = next(link for link in first.links if "after=" in link)
    second = omar.follow("/desk", skip)
    assert shown(second) == jobs[1]
    away = {**_form(second), "reason": Reason.NOT_NEEDED.value}
    answer = omar.post(f"/desk/{jobs[1]}/reject", away)
    third = omar.follow(f"/desk/{jobs[1]}/reject", answer.headers["Location"])
    assert shown(third) == jobs[2]
    assert f"The study before, {jobs[1][:8]} , is turned away." in third.text
    assert f"../prichexy/studies/{jobs[1]}" in third.links
    answer = omar.post(f"/desk/{jobs[2]}/retry", _form(third))
    last = omar.follow(f"/desk/{jobs[2]}/retry", answer.headers["Location"])
    assert "That was the newest one. 1 that is older or was skipped still waits." in last.text
    again = next(link for link in last.links if link.endswith("prichexy/desk?"))
    assert shown(omar.follow("/desk", again)) == jobs[0]
    states = {job: ledger.study(job) for job in jobs}
    assert [one.state for one in states.values() if one is not None] == [
        State.QUARANTINED,
        State.REJECTED,
        State.PENDING,
    ]


def test_after_a_study_that_was_opened_by_its_own_address_comes_the_oldest(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    jobs = [_quarantine(site, ledger, clock, name) for name in "abc"]
    odd = _release(omar, jobs[2], {**_boxes(), "why": ""})
    page = Page(odd, status=400)
    answer = omar.post(f"/desk/{jobs[2]}/retry", _form(page))
    assert f"of={jobs[2]}" in answer.headers["Location"]
    shown = omar.follow(f"/desk/{jobs[2]}/retry", answer.headers["Location"])
    assert f"Quarantine: study {jobs[0][:8]}" in shown.text
    assert "skipped" not in shown.text


def test_the_reasons_stand_on_the_desk_with_their_numbers_and_what_can_be_done_with_all(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    for name in "ab":
        _quarantine(site, ledger, clock, name, Reason.MULTI_FRAME)
    clock.move(2 * 3600)
    _quarantine(site, ledger, clock, "c")
    page = omar.page("/desk")
    assert "any reason 3" in page.text
    assert f"{Reason.MULTI_FRAME.sentence} 2 oldest 2 h ago" in page.text
    assert f"{Reason.BURNED_IN_TEXT.sentence} 1 oldest" in page.text
    assert "../prichexy/desk?reason=burned_in_text" in page.links
    words = "?state=quarantined&reason=multi_frame"
    for deed in ("retry", "reject"):
        assert f"../prichexy/studies/{deed}{words}" in page.links
    # Of one alone there are no others to do it with.
    alone = omar.page("/desk", reason="burned_in_text").links
    assert not [link for link in alone if "studies/retry?" in link]


def test_what_is_known_of_a_study_is_said_in_words_and_not_by_the_names_of_a_report(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    message, attempt = _claimed(ledger, clock, "a")
    counts = {"text_pictures": 2.0, "images_in_doubt": 3.0, "targets_not_withdrawn": 1.0}
    held = report_of(
        message, State.QUARANTINED, Reason.BURNED_IN_TEXT, attempt=attempt, measures=counts
    )
    assert ledger.report(held).proceed
    page = omar.page("/desk")
    assert "Regions in doubt with a picture 2 Images in doubt 3" in page.text
    for name in counts:
        assert name.replace("_", " ") not in page.text


def test_what_is_said_of_the_study_before_names_it_and_leads_to_it(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job, other = (_quarantine(site, ledger, clock, name) for name in "ab")
    form = {**_form(omar.page(f"/desk/{job}")), "reason": Reason.NOT_NEEDED.value}
    assert ledger.again(job, revision=1, actor="user ada")
    answer = omar.post(f"/desk/{job}/reject", form)
    page = omar.follow(f"/desk/{job}/reject", answer.headers["Location"])
    assert f"study {other[:8]}" in page.text
    assert f"The study before, {job[:8]} , was left as it is" in page.text
    assert "below" not in page.text
    assert f"../prichexy/studies/{job}" in page.links
    assert omar.ask("/desk", note="moved", of="<b>").status == 400
    assert "The study before" not in omar.page("/desk", note="moved").text


def test_only_studies_held_for_one_reason_are_shown_where_it_is_chosen(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    _quarantine(site, ledger, clock, "a", Reason.MULTI_FRAME)
    job = _quarantine(site, ledger, clock, "b")
    page = omar.page("/desk", reason="burned_in_text")
    assert page.fields["filter"] == "burned_in_text"
    assert "1 study waits" in page.text
    answer = omar.post(f"/desk/{job}/release", _form(page, **_boxes()))
    assert "reason=burned_in_text" in answer.headers["Location"]
    assert "Nothing waits" in omar.page("/desk", reason="burned_in_text").text
    assert omar.ask("/desk", reason="none").status == 400
    assert omar.ask("/desk", after="none").status == 400


def test_the_desk_runs_no_script_but_its_own_files(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    _quarantine(site, ledger, clock)
    answer = omar.ask("/desk")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert policy.endswith("; script-src 'self'")
    assert "unsafe" not in policy
    page = Page(answer)
    assert page.tags.count("script") == 2
    assert not {"style"} & page.attributes
    assert not {name for name in page.attributes if name.startswith("on")}
    for script in ("controls.js", "desk.js"):
        assert f"prichexy/static/{script}" in str(answer.body)
        assert omar.ask(f"/static/{script}").mime == "text/javascript"
    assert "Content-Security-Policy" not in omar.ask("/pauses").headers


@pytest.mark.parametrize("told", [1e12, 300_000.0, 13.0])
def test_no_count_that_a_worker_tells_makes_the_pages_long(
    site: Site, ledger: Ledger, clock: FakeClock, omar: Reader, told: float
) -> None:
    message, attempt = _claimed(ledger, clock, "a")
    quarantined = report_of(
        message,
        State.QUARANTINED,
        Reason.BURNED_IN_TEXT,
        attempt=attempt,
        measures={"text_pictures": told},
    )
    assert ledger.report(quarantined).proceed
    assert str(omar.ask("/desk").body).count("/text-") == MOST_PICTURES
    assert f"The {MOST_PICTURES} regions in doubt" in omar.page(f"/studies/{message.job_id}").text
    assert f"{MOST_PICTURES} regions in doubt" in omar.page("/studies").text


def test_a_study_that_is_no_longer_in_quarantine_leads_to_its_own_page(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _quarantine(site, ledger, clock)
    assert f"../../prichexy/desk/{job}" in omar.page(f"/studies/{job}").links
    ledger.again(job, revision=1, actor="user omar")
    assert omar.ask(f"/desk/{job}").headers["Location"].endswith(f"prichexy/studies/{job}")
    assert omar.ask(f"/desk/{'0' * 32}").status == 404


# --- Withdrawal ------------------------------------------------------------------------------


def _exported(ledger: Ledger, clock: FakeClock, name: str = "a") -> str:
    message, attempt = _claimed(ledger, clock, name)
    ledger.report(report_of(message, State.EXPORTED, attempt=attempt, instances=2))
    return message.job_id


def _withdraw(site: Site, job: str, reason: Reason = Reason.WITHDRAWN_CONSENT) -> Response:
    ada = Reader(site, "ada")
    page = ada.page(f"/studies/{job}/withdraw")
    fields = {**page.fields, "reason": reason.value}
    return ada.post(f"/studies/{job}/withdraw", fields)


def test_an_export_that_is_withdrawn_ends_rejected_for_the_reason_that_was_chosen(
    site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    job = _exported(ledger, clock)
    assert "note=withdrawn" in _withdraw(site, job).headers["Location"]
    [message] = ledger.outbox()
    assert (message.errand, message.revision) == (Errand.WITHDRAW, 2)
    message, attempt = _claim(ledger, orthanc_id("a"))
    exported = report_of(message, State.EXPORTED, attempt=attempt)
    assert not ledger.report(exported).proceed, "nobody asked for that"
    measures = {"targets_not_withdrawn": 1.0}
    done = report_of(
        message,
        State.REJECTED,
        Reason.WITHDRAWN,
        attempt=attempt,
        left_at=("pacs",),
        measures=measures,
    )
    assert ledger.report(done).proceed
    study = ledger.study(job)
    assert study is not None
    assert (study.state, study.reason) == (State.REJECTED, Reason.WITHDRAWN_CONSENT)
    assert study.reason_sentence is not None
    assert "may be left at pacs." in study.reason_sentence
    steps = [line for line in ledger.lines(job_id=job) if line.deed == Deed.STEP]
    asked = next(line for line in steps if line.from_state == "exported")
    assert (asked.actor, asked.reason) == ("user ada", "withdrawn_no_consent")
    assert asked.details["errand"] == "withdraw"
    assert steps[-1].details["left_at"] == "pacs"


def test_the_rules_do_not_take_a_withdrawn_study_in_again_as_it_is(
    site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    job = _exported(ledger, clock)
    _withdraw(site, job, Reason.WITHDRAWN_FAULTY)
    message, attempt = _claim(ledger, orthanc_id("a"))
    ledger.report(report_of(message, State.REJECTED, Reason.WITHDRAWN, attempt=attempt))
    ledger.note({orthanc_id("a"): clock()}, cursor=3)
    ledger.settle(orthanc_id("a"), Decision(None), content="a", instances=2)
    assert ledger.outbox() == ()
    ledger.settle(orthanc_id("a"), Decision(None), content="more", instances=3)
    [message] = ledger.outbox()
    assert message.errand is Errand.ANONYMIZE


def test_a_withdrawal_that_failed_is_what_is_tried_again(
    site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    job = _exported(ledger, clock)
    _withdraw(site, job)
    message, attempt = _claim(ledger, orthanc_id("a"))
    ledger.report(report_of(message, State.FAILED, Reason.TARGET_UNREACHABLE, attempt=attempt))
    page = Reader(site, "omar").page(f"/studies/{job}/retry")
    assert "withdrawal" in page.text
    assert "With this you say that it is" not in page.text, "nobody says so with that"
    assert ledger.again(job, revision=2, actor="user omar")
    assert _next_message(ledger, job).errand is Errand.WITHDRAW


def test_a_withdrawal_that_failed_is_turned_away_by_nobody(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _exported(ledger, clock)
    _withdraw(site, job, Reason.WITHDRAWN_FAULTY)
    message, attempt = _claim(ledger, orthanc_id("a"))
    ledger.report(report_of(message, State.FAILED, Reason.TARGET_UNREACHABLE, attempt=attempt))
    links = omar.page(f"/studies/{job}").links
    assert [link for link in links if link.endswith("/retry")]
    assert not [link for link in links if link.endswith("/reject")]
    assert omar.ask(f"/studies/{job}/reject").headers["Location"] == f"../{job}?note=moved"


def test_only_an_administrator_withdraws_and_only_what_is_exported(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _exported(ledger, clock)
    assert omar.ask(f"/studies/{job}/withdraw").status == 403
    assert not [link for link in omar.page(f"/studies/{job}").links if "withdraw" in link]
    quarantined = _quarantine(site, ledger, clock, "b")
    ada = Reader(site, "ada")
    assert not [link for link in ada.page(f"/studies/{quarantined}").links if "withdraw" in link]
    values: Any = {"actor": "user ada", "reason": Reason.WITHDRAWN_WRONG}
    assert not ledger.order_withdrawal(quarantined, revision=1, **values)
    assert not ledger.order_withdrawal(job, revision=2, **values)
    assert ledger.order_withdrawal(job, revision=1, **values)
    assert not ledger.order_withdrawal(job, revision=1, **values), "a second click"


def test_nobody_who_was_not_asked_to_can_report_a_withdrawal(
    ledger: Ledger, clock: FakeClock
) -> None:
    message, attempt = _claimed(ledger, clock, "a")
    done = report_of(message, State.REJECTED, Reason.WITHDRAWN, attempt=attempt)
    assert not ledger.report(done).proceed
    study = ledger.study(message.job_id)
    assert study is not None
    assert study.state is State.PROCESSING


# --- Another model or strength -----------------------------------------------------------------


BUNDLE = "e" * 64


def _rerun(site: Site, job: str, **fields: str) -> Response:
    ada = Reader(site, "ada")
    page = ada.page(f"/studies/{job}/rerun")
    return ada.post(f"/studies/{job}/rerun", {**page.fields, **fields})


def _with_a_model(ledger: Ledger) -> None:
    worker = announcement_of()
    ledger.announce(replace(worker, models=(Available(BUNDLE, worker.model),)))


@pytest.mark.parametrize("state", [State.EXPORTED, State.QUARANTINED, State.FAILED])
def test_a_study_is_made_anew_with_the_model_and_strength_that_were_chosen(
    site: Site, ledger: Ledger, clock: FakeClock, state: State
) -> None:
    _with_a_model(ledger)
    message, attempt = _claimed(ledger, clock, "a")
    ledger.report(report_of(message, state, Reason.UNEXPECTED, attempt=attempt))
    assert (
        "bundle eeeeeeeeeeee" in Reader(site, "ada").page(f"/studies/{message.job_id}/rerun").text
    )
    answer = _rerun(site, message.job_id, bundle=BUNDLE, strength="1.25")
    assert "note=rerun" in answer.headers["Location"]
    [again] = ledger.outbox()
    assert (again.revision, again.bundle, again.strength) == (2, BUNDLE, 1.25)
    step = ledger.lines(job_id=message.job_id)[-1]
    assert (step.actor, step.from_state, step.to_state) == ("user ada", state.value, "pending")
    assert (step.details["bundle"], step.details["strength"]) == (BUNDLE, "1.25")
    study = ledger.study(message.job_id)
    assert study is not None
    assert study.orders.bundle == BUNDLE


def test_only_what_living_workers_have_can_be_chosen_and_the_page_says_how_many(
    site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    _with_a_model(ledger)
    job, ada = _exported(ledger, clock), Reader(site, "ada")
    clock.move(50)
    ledger.announce(announcement_of("worker-2"))
    page = ada.page(f"/studies/{job}/rerun")
    assert "bundle eeeeeeeeeeee, at 1 of 2 workers" in page.text
    assert "the export that stands is withdrawn" in page.text, "what may become of it"
    clock.move(3600)
    ledger.announce(announcement_of("worker-2"))
    assert "bundle eeeeeeeeeeee" not in ada.page(f"/studies/{job}/rerun").text
    answer = ada.post(f"/studies/{job}/rerun", {**page.fields, "bundle": BUNDLE, "strength": "1"})
    assert answer.status == 400
    assert "No living worker has this model any more." in str(answer.body)
    assert ledger.outbox() == ()


def test_a_choice_holds_once_and_for_what_is_released_of_it(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    _with_a_model(ledger)
    job = _exported(ledger, clock)
    _rerun(site, job, bundle=BUNDLE, strength="0.5")
    message, attempt = _claim(ledger, orthanc_id("a"))
    _doubt(site, _image(message, attempt))
    ledger.report(report_of(message, State.QUARANTINED, Reason.BURNED_IN_TEXT, attempt=attempt))
    assert "note=released" in _release(omar, job, _boxes()).headers["Location"]
    assert (_next_message(ledger, job).bundle, _next_message(ledger, job).strength) == (BUNDLE, 0.5)
    message, attempt = _claim(ledger, orthanc_id("a"))
    ledger.report(report_of(message, State.FAILED, Reason.MODEL_UNAVAILABLE, attempt=attempt))
    ledger.again(job, revision=3, actor="user omar")
    assert (_next_message(ledger, job).bundle, _next_message(ledger, job).strength) == ("", 1.0)


@pytest.mark.parametrize(
    "fields",
    [
        {"bundle": "f" * 64},
        {"strength": "0.4"},
        {"strength": "2.5"},
        {"strength": "1e0"},
        {"strength": "nan"},
        {"strength": "-1"},
        {"strength": "١"},
    ],
    ids=str,
)
def test_a_choice_that_there_is_not_changes_nothing(
    site: Site, ledger: Ledger, clock: FakeClock, fields: dict[str, str]
) -> None:
    _with_a_model(ledger)
    job = _exported(ledger, clock)
    assert _rerun(site, job, **fields).status == 400
    assert ledger.outbox() == ()


def test_only_an_administrator_chooses_and_a_page_out_of_date_changes_nothing(
    site: Site, omar: Reader, ledger: Ledger, clock: FakeClock
) -> None:
    job = _exported(ledger, clock)
    assert omar.ask(f"/studies/{job}/rerun").status == 403
    assert omar.post(f"/studies/{job}/rerun", {"token": "1.a"}).status == 403
    ada = Reader(site, "ada")
    fields = ada.page(f"/studies/{job}/rerun").fields
    first, second = (ada.post(f"/studies/{job}/rerun", fields) for _click in range(2))
    assert "note=rerun" in first.headers["Location"]
    assert "note=moved" in second.headers["Location"]
    assert ledger.outbox()[0].revision == 2


def test_a_withdrawal_that_failed_is_not_made_anew(
    site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    job = _exported(ledger, clock)
    _withdraw(site, job)
    message, attempt = _claim(ledger, orthanc_id("a"))
    ledger.report(report_of(message, State.FAILED, Reason.TARGET_UNREACHABLE, attempt=attempt))
    assert "note=moved" in Reader(site, "ada").ask(f"/studies/{job}/rerun").headers["Location"]
    assert not ledger.order_rerun(job, revision=2, actor="user ada", bundle="", strength=1.0)
