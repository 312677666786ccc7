"""The plugin inside a real Orthanc, with a real Redis, over every interruption that is known."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from pydicom.uid import generate_uid

from prichexy_testing.dicoms import CANARIES, canary_values, radiograph_dataset, write
from prichexy_testing.plugin_fakes import announcement_of, report_of
from prichexy_testing.plugin_servers import REPO, PluginOrthanc, running_plugin_orthanc
from prichexy_testing.servers import RedisServer, free_port, running_redis, wait_until
from prichexy_worker.contract import (
    API_ROOT,
    REQUEST_HEADER,
    TASK_NAME,
    Claim,
    Reason,
    State,
    StudyMessage,
    TextPictures,
)

pytestmark = [pytest.mark.orthanc, pytest.mark.redis]

#: Seconds that a request may take while Redis hangs, in the best of some tries: what waits for
#: Redis waits two seconds, its sockets' time limit, in every try; a busy machine holds up some.
QUICK = 1.5
TRIES = 5
#: Seconds in which Orthanc ends although Redis hangs; it is killed, which shows, after many more.
STOPS = 40.0
#: Milliseconds for each step of a browser, which starts slowly on a busy machine.
PAGE = 120_000


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with running_redis(password="hush") as server:
        yield server


@pytest.fixture
def orthanc(redis: RedisServer) -> Iterator[PluginOrthanc]:
    with running_plugin_orthanc(_broker(redis)) as server:
        yield server


@pytest.fixture(scope="module")
def served() -> Iterator[PluginOrthanc]:
    """Give one Orthanc without a broker for the tests that hand nothing on."""
    with running_plugin_orthanc({"Broker": {"Url": f"redis://127.0.0.1:{free_port()}/0"}}) as one:
        wait_until(lambda: bool(one.health()["ledger"] == "ok"), what="the ledger is open")
        yield one


def _broker(redis: RedisServer) -> dict[str, Any]:
    return {"Broker": {"Url": redis.url, "Password": redis.password}}


def _radiograph(study: str = "1", instance: str = "1", **attributes: Any) -> bytes:
    uids = {
        "StudyInstanceUID": generate_uid(entropy_srcs=["study", study]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=["series", study]),
        "SOPInstanceUID": generate_uid(entropy_srcs=["instance", study, instance]),
    }
    return write(radiograph_dataset(identity={**CANARIES, **uids}, **attributes))


def _store(orthanc: PluginOrthanc, content: bytes) -> dict[str, Any]:
    answer = orthanc.post("/instances", content)
    assert answer.status_code == 200
    value: dict[str, Any] = answer.json()
    return value


def _c_store(orthanc: PluginOrthanc, content: bytes, folder: Path) -> None:
    program = shutil.which("storescu")
    if program is None:
        pytest.skip("storescu is not installed (dcmtk)")
    file = folder / "radiograph.dcm"
    file.write_bytes(content)
    command = [program, "-aec", "ORTHANC", "localhost", str(orthanc.dicom_port), str(file)]
    subprocess.run(command, check=True, timeout=120, capture_output=True)


def _state(orthanc: PluginOrthanc, study_id: str) -> str | None:
    """Give the state of one study, or None when the ledger does not know it yet."""
    states = (study["state"] for study in orthanc.studies() if study["study_id"] == study_id)
    return next(states, None)


def _seconds(work: Callable[[], object]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def _is_quick(work: Callable[[], object]) -> bool:
    """Say whether ``work`` takes less than QUICK in one of its tries."""
    return any(_seconds(work) < QUICK for _ in range(TRIES))


class _Sender:
    """Stores a study that was not there before at each call: one that is there costs nothing."""

    def __init__(self, store: Callable[[bytes], object]) -> None:
        self._store = store
        self.count = 0

    def __call__(self) -> None:
        self.count += 1
        self._store(_radiograph(f"{id(self)}-{self.count}"))


def _messages(redis: RedisServer) -> set[tuple[str, StudyMessage]]:
    """Read what waits in the queue, without taking it.

    A set: a message whose sending a busy machine held up beyond the time limit is sent twice.
    """
    program = shutil.which("redis-cli") or "redis-cli"
    command = [program, "-p", str(redis.port), "--no-auth-warning", "--json"]
    asked = subprocess.run(
        [*command, "LRANGE", "prichexy", "0", "-1"],
        env={**os.environ, "REDISCLI_AUTH": redis.password or ""},
        check=True,
        capture_output=True,
        timeout=120,
    )
    found = set()
    for raw in json.loads(asked.stdout):
        envelope = json.loads(raw)
        args, _kwargs, _embed = json.loads(base64.b64decode(envelope["body"]))
        found.add((envelope["headers"]["task"], StudyMessage.from_json(args[0])))
    return found


def test_a_chest_radiograph_goes_to_the_broker_and_names_nobody_on_the_way(
    orthanc: PluginOrthanc, redis: RedisServer, tmp_path: Path
) -> None:
    _c_store(orthanc, _radiograph(), tmp_path)
    orthanc.wait_for({"queued": 1})
    [(task, message)] = _messages(redis)
    [study] = orthanc.studies()
    assert task == TASK_NAME
    assert message == StudyMessage(study["job_id"], study["study_id"], revision=1)
    assert orthanc.trail(message.job_id) == ["watched", "pending", "queued"]
    shown = orthanc.get("/prichexy").text + json.dumps(orthanc.health()) + orthanc.log()
    kept = b"".join(file.read_bytes() for file in (orthanc.folder / "storage").glob("prichexy*"))
    kept += b"".join(file.read_bytes() for file in redis.folder.rglob("*") if file.is_file())
    assert message.job_id.encode() in kept
    for value in canary_values():
        assert value not in shown
        assert value.encode() not in kept
    for secret in ("hush", orthanc.worker_password):
        assert secret not in shown
        assert secret.encode() not in kept.replace(b"requirepass hush", b"")


def test_what_is_not_taken_in_is_recorded_with_the_reason(
    orthanc: PluginOrthanc, redis: RedisServer
) -> None:
    _store(orthanc, _radiograph("hip", body_part="HIP"))
    own = _radiograph("own", DeidentificationMethod=["Basic Profile", "PriCheXy gateway 0.1.0"])
    _store(orthanc, own)
    chest = _store(orthanc, _radiograph("chest"))
    orthanc.wait_for({"queued": 1, "rejected": 2})
    copied = orthanc.post(
        f"/studies/{chest['ParentStudy']}/modify",
        json.dumps({"Replace": {"StudyID": "x"}}).encode(),
    )
    assert copied.status_code == 200
    orthanc.wait_for({"queued": 1, "rejected": 3})
    reasons = sorted(str(study["reason"]) for study in orthanc.studies())
    assert reasons == ["None", "copy_of_a_study", "no_rule_matches", "own_output"]
    [(_, message)] = _messages(redis)
    assert message.study_id == chest["ParentStudy"]


def test_a_study_that_arrives_twice_is_sent_once_and_a_late_instance_sends_it_anew(
    orthanc: PluginOrthanc, redis: RedisServer
) -> None:
    _store(orthanc, _radiograph())
    orthanc.wait_for({"queued": 1})
    assert _store(orthanc, _radiograph())["Status"] == "AlreadyStored"
    _store(orthanc, _radiograph(instance="late"))
    wait_until(lambda: len(_messages(redis)) == 2, what="the new revision is sent")
    assert sorted(message.revision for _, message in _messages(redis)) == [1, 2]
    assert orthanc.studies()[0]["instances"] == 2


def test_with_redis_stopped_orthanc_works_as_before_and_nothing_is_lost(
    orthanc: PluginOrthanc, redis: RedisServer, tmp_path: Path
) -> None:
    by_c_store = _Sender(lambda content: _c_store(orthanc, content, tmp_path))
    by_rest = _Sender(lambda content: _store(orthanc, content))
    redis.stop()
    assert _is_quick(by_c_store)
    assert _is_quick(by_rest)
    sent = by_c_store.count + by_rest.count
    orthanc.wait_for({"pending": sent})
    wait_until(lambda: not orthanc.health()["broker"]["reachable"], what="the outage is noticed")
    assert "The broker does not answer" in orthanc.get("/prichexy").text
    redis.start()
    orthanc.wait_for({"queued": sent})
    assert len(_messages(redis)) == sent
    wait_until(lambda: bool(orthanc.health()["broker"]["reachable"]), what="the return is noticed")


def test_with_redis_hung_orthanc_works_as_before_and_nothing_is_lost(
    orthanc: PluginOrthanc, redis: RedisServer, tmp_path: Path
) -> None:
    assert redis._process is not None
    pid = redis._process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        send = _Sender(lambda content: _c_store(orthanc, content, tmp_path))
        for _ in range(4):
            assert _is_quick(send)
            assert _is_quick(orthanc.health)
            assert _is_quick(lambda: orthanc.get("/studies"))
        orthanc.wait_for({"pending": send.count})
        # Not "not reachable": that is said before the first contact, too.
        wait_until(
            lambda: "TimeoutError" in orthanc.health()["broker"]["detail"], what="it is noticed"
        )
        assert not orthanc.health()["broker"]["reachable"]
        assert _is_quick(lambda: orthanc.get("/prichexy"))
    finally:
        os.kill(pid, signal.SIGCONT)
    orthanc.wait_for({"queued": send.count})
    assert len(_messages(redis)) == send.count, "perhaps more than once, but each of them"


def test_with_redis_hung_orthanc_stops_within_seconds_and_loses_nothing(
    orthanc: PluginOrthanc, redis: RedisServer
) -> None:
    assert redis._process is not None
    pid = redis._process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        _store(orthanc, _radiograph())
        orthanc.wait_for({"pending": 1})
        process = orthanc._process
        assert process is not None
        assert _seconds(orthanc.stop) < STOPS
    finally:
        os.kill(pid, signal.SIGCONT)
    assert process.returncode == 0, "no crash while the plugin is unloaded"
    assert "Orthanc has stopped" in orthanc.log()
    orthanc.start()
    orthanc.wait_for({"queued": 1})


@pytest.mark.parametrize("end", ["kill", "stop"])
@pytest.mark.parametrize("known", [False, True], ids=["new study", "late instance"])
def test_an_end_of_orthanc_before_the_study_is_stable_loses_nothing(
    redis: RedisServer, end: str, known: bool
) -> None:
    with running_plugin_orthanc(_broker(redis), StableAge=4) as orthanc:
        if known:
            _store(orthanc, _radiograph())
            orthanc.wait_for({"queued": 1})
        _store(orthanc, _radiograph(instance="2"))
        getattr(orthanc, end)()
        orthanc.start()
        expected = 2 if known else 1
        wait_until(lambda: len(_messages(redis)) == expected, what="the message is sent")
        assert orthanc.studies()[0]["revision"] == expected
        assert orthanc.studies()[0]["instances"] == expected


def test_studies_that_come_all_at_once_are_each_sent_once(
    orthanc: PluginOrthanc, redis: RedisServer
) -> None:
    contents = [_radiograph(str(n // 2), str(n % 2), rows=16, columns=16) for n in range(120)]
    with ThreadPoolExecutor(8) as pool:
        stored = [pool.submit(_store, orthanc, content) for content in contents]
        took = []
        while not all(one.done() for one in stored):
            took.append(_seconds(orthanc.health))
            assert orthanc.get("/prichexy").status_code == 200
        assert statistics.median(took or [0]) < 5
        assert all(one.result()["Status"] == "Success" for one in stored)
    wait_until(
        lambda: sum(study["instances"] for study in orthanc.studies()) == 120,
        what="every instance is counted",
    )
    orthanc.wait_for({"queued": 60})
    newest = {message.study_id: message.revision for _, message in _messages(redis)}
    assert len(newest) == 60


def test_with_a_wrong_configuration_orthanc_serves_and_takes_in_later_what_came(
    redis: RedisServer,
) -> None:
    section = _broker(redis)
    wrong = {**section, "Intake": {"Rules": [{"Name": "a", "Modalty": ["CR"]}]}}
    with running_plugin_orthanc(wrong) as orthanc:
        _store(orthanc, _radiograph())
        health = orthanc.health()
        assert health["problems"][0].startswith("PriCheXy.Intake.Rules[0].Modalty: ")
        assert "PriCheXy.Intake.Rules[0].Modalty" in orthanc.get("/prichexy").text
        assert "PriCheXy.Intake.Rules[0].Modalty" in orthanc.log()
        orthanc.stop()
        assert _messages(redis) == set()
        orthanc.configure(section)
        orthanc.start()
        orthanc.wait_for({"queued": 1})


def test_without_the_plugins_packages_orthanc_serves_and_says_what_is_missing(
    redis: RedisServer,
) -> None:
    with running_plugin_orthanc(_broker(redis), paths=str(REPO / "worker")) as orthanc:
        _store(orthanc, _radiograph())
        answer = orthanc.get(f"{API_ROOT}/health")
        assert answer.status_code == 503
        assert "No module named" in answer.json()["problems"][0]
        assert "PriCheXy is not running" in orthanc.get("/prichexy").text


def test_another_sites_page_can_change_nothing_in_this_orthanc(served: PluginOrthanc) -> None:
    def post(path: str, **headers: str) -> int:
        return served.ask("POST", path, content=_radiograph(), headers=headers).status_code

    assert post("/instances", origin="http://evil.example") == 403
    before = served.get("/instances").json()
    assert post("/instances", **{"sec-fetch-site": "cross-site"}) == 403
    assert post(f"{API_ROOT}/workers", origin="http://evil.example") == 403
    assert served.get("/instances").json() == before
    assert post("/instances", origin=served.url) == 200
    assert post("/instances") == 200


def test_only_the_workers_user_may_report_and_nobody_sees_anything_without_a_login(
    served: PluginOrthanc,
) -> None:
    announcement = announcement_of().to_json()
    assert served.post_as_worker("/workers", announcement).status_code == 200
    as_admin = served.ask(
        "POST",
        f"{API_ROOT}/workers",
        content=json.dumps(announcement).encode(),
        headers={REQUEST_HEADER: "1"},
    )
    assert as_admin.status_code == 403
    assert "workers' user" in as_admin.json()["error"]
    assert [worker["worker_id"] for worker in served.health()["workers"]] == ["worker-1"]
    assert "weights are untrained" in served.get("/prichexy").text
    for path in ("/prichexy", "/prichexy/static/dashboard.css", f"{API_ROOT}/health"):
        assert served.ask("GET", path, anonymous=True).status_code == 401


def test_pictures_of_what_is_in_doubt_lie_beside_the_study_and_go_with_it(
    orthanc: PluginOrthanc,
) -> None:
    study_id = _store(orthanc, _radiograph())["ParentStudy"]
    orthanc.wait_for({"queued": 1})
    [study] = orthanc.studies()
    message = StudyMessage(study["job_id"], study_id, revision=1)
    orthanc.post_as_worker("/reports", report_of(message, State.PROCESSING).to_json())
    picture = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 400
    shown = TextPictures(message.job_id, 1, 1, (picture,))
    for _again in range(2):
        answer = orthanc.post_as_worker("/pictures", shown.to_json())
        assert Claim.from_json(answer.json()).proceed, "what was kept before is replaced"
    quarantined = report_of(
        message, State.QUARANTINED, Reason.BURNED_IN_TEXT, attempt=1, measures={"text_pictures": 1}
    )
    assert orthanc.post_as_worker("/reports", quarantined.to_json()).status_code == 200
    path = f"/prichexy/studies/{message.job_id}/text-1.png"
    answer = orthanc.get(path)
    assert (answer.status_code, answer.content) == (200, picture)
    assert answer.headers["Content-Type"] == "image/png"
    assert "no-store" in answer.headers["Cache-Control"]
    assert orthanc.ask("GET", path, auth=("worker", orthanc.worker_password)).status_code == 403
    assert orthanc.ask("GET", path, anonymous=True).status_code == 401
    assert path.removeprefix("/") in orthanc.get("/prichexy").text
    assert orthanc.ask("DELETE", f"/studies/{study_id}").status_code == 200
    assert orthanc.get(path).status_code == 404


@pytest.mark.parametrize("body", [b"[" * 900, b"[" * 60_000, b'{"a":' * 900])
def test_a_deeply_nested_body_is_refused_and_orthanc_lives(
    served: PluginOrthanc, body: bytes
) -> None:
    answer = served.ask_as_worker("POST", f"{API_ROOT}/reports", body)
    assert answer.status_code == 422
    assert served.get("/system").is_success


def test_the_workers_password_opens_only_what_workers_use(served: PluginOrthanc) -> None:
    stored = _store(served, _radiograph("kept", body_part="HIP"))
    study, instance = f"/studies/{stored['ParentStudy']}", f"/instances/{stored['ID']}"

    def status(method: str, path: str, content: bytes = b"{}") -> int:
        return served.ask_as_worker(method, path, content).status_code

    for path in ("/system", study, f"{study}/instances", f"{instance}/file"):
        assert status("GET", path) == 200
        assert status("GET", f"{path}?_method=delete") == 403
    assert status("GET", f"{API_ROOT}/health") == 200
    assert status("POST", "/tools/lookup") == 200
    for method, path in (
        ("DELETE", study),
        ("DELETE", instance),
        ("DELETE", f"/{study}/"),
        ("PUT", "/modalities/elsewhere"),
        ("POST", "/instances"),
        ("POST", "/modalities/elsewhere/store"),
        ("POST", "/tools/find"),
        ("GET", "/patients"),
        ("GET", f"{study}/archive"),
        ("GET", f"{API_ROOT}/studies"),
        ("GET", "/prichexy"),
    ):
        assert status(method, path) == 403, f"{method} {path}"
    overridden = served.ask(
        "POST",
        study,
        auth=("worker", served.worker_password),
        headers={"X-HTTP-Method-Override": "DELETE"},
    )
    assert overridden.status_code == 403
    assert served.get(study).status_code == 200, "nothing was deleted"


@pytest.mark.parametrize("paths", [None, str(REPO / "worker")], ids=["wrong", "not loaded"])
def test_the_workers_user_is_held_back_even_when_the_plugin_does_not_run(
    paths: str | None,
) -> None:
    with running_plugin_orthanc({"Broker": {"Url": "no address"}}, paths=paths) as orthanc:
        for path, expected in (("/system", 200), ("/studies", 403)):
            assert orthanc.ask_as_worker("GET", path).status_code == expected


def test_a_file_missing_in_orthancs_storage_holds_no_other_study_up(
    redis: RedisServer,
) -> None:
    # With a wrong address nothing looks at the study while it can still be read. Without the
    # setting Orthanc would answer from its memory.
    wrong = {"Broker": {"Url": "no address"}}
    with running_plugin_orthanc(wrong, MaximumStorageCacheSize=0) as orthanc:
        _store(orthanc, _radiograph("broken"))
        for file in (orthanc.folder / "storage").glob("??/??/*"):
            file.unlink()
        orthanc.stop()
        orthanc.configure(_broker(redis))
        orthanc.start()
        good = _store(orthanc, _radiograph("good"))["ParentStudy"]
        orthanc.wait_for({"queued": 1, "watched": 1})
        assert _state(orthanc, good) == "queued"
        wait_until(
            lambda: bool(orthanc.health()["unreadable"] == 1), what="the broken one is counted"
        )
        assert "1 study cannot be read" in orthanc.get("/prichexy").text


def test_what_was_there_before_is_taken_in_by_the_button_and_goes_on_after_a_kill(
    redis: RedisServer,
) -> None:
    section = {**_broker(redis), "Intake": {"Existing": False}}
    # With a wrong address nothing is taken in: Orthanc so holds studies of before the gateway.
    with running_plugin_orthanc({"Broker": {"Url": "no address"}}) as orthanc:
        for number in range(12):
            _store(orthanc, _radiograph(f"before {number}", rows=16, columns=16))
        orthanc.stop()
        orthanc.configure(section)
        orthanc.start()
        wait_until(lambda: bool(orthanc.health()["ledger"] == "ok"), what="the ledger is open")
        orthanc.ask("DELETE", "/changes")
        _store(orthanc, _radiograph("after", rows=16, columns=16))
        orthanc.wait_for({"queued": 1})

        def press(rate: int, token: str) -> httpx.Response:
            return orthanc.ask(
                "POST",
                "/prichexy/backfill",
                content=urlencode({"token": token, "per_minute": rate}).encode(),
                headers={
                    "content-type": "application/x-www-form-urlencoded",
                    "origin": orthanc.url,
                },
            )

        def token() -> str:
            found = re.search(r'name="token" value="(\w+)"', orthanc.get("/prichexy").text)
            assert found is not None
            return found[1]

        assert press(12, "0" * 64).status_code == 403
        assert orthanc.health()["backfill"] is None
        begun = press(12, token())
        assert (begun.status_code, begun.headers["location"]) == (303, "../prichexy")
        wait_until(lambda: bool(orthanc.health()["backfill"]["found"]), what="the first are found")
        orthanc.kill()
        orthanc.start()
        wait_until(lambda: bool(orthanc.health()["ledger"] == "ok"), what="the ledger is open")
        assert press(6000, token()).status_code == 303
        orthanc.wait_for({"queued": 13})
        wait_until(lambda: not orthanc.health()["backfill"]["running"], what="it has ended")
        walk = orthanc.health()["backfill"]
        assert (walk["total"], walk["seen"], walk["found"], walk["again"]) == (13, 13, 12, 0)
        assert walk["started_by"] == orthanc.user
        assert len(_messages(redis)) == 13
        assert {study["revision"] for study in orthanc.studies()} == {1}


def test_the_page_and_its_files_carry_their_headers_through_orthanc(served: PluginOrthanc) -> None:
    page = served.get("/prichexy")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert served.get("/prichexy/").text[:100] == page.text[:100]
    style = served.get("/prichexy/static/dashboard.css")
    assert style.headers["content-type"] == "text/css"
    assert served.get("/prichexy/nothing").status_code == 404
    moved = served.get("/prichexy/prichexy/static/dashboard.css")
    assert moved.status_code == 302
    assert moved.headers["location"] == "../../../prichexy/static/dashboard.css"
    assert "/prichexy" in served.get("/plugins/explorer.js").text


@pytest.mark.browser
def test_a_person_finds_the_page_from_orthanc_explorer(served: PluginOrthanc) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    # Other tests leave studies in this Orthanc: what is waited for and looked at is this one.
    study = _store(served, _radiograph("seen", body_part="HIP"))["ParentStudy"]
    wait_until(lambda: _state(served, study) == "rejected", what="the study is decided")
    complaints: list[str] = []

    def note(message: Any) -> None:
        complaints.append(message.text)

    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"], timeout=PAGE
        )
        try:
            login = {"username": served.user, "password": served.password}
            page = browser.new_context(http_credentials=login).new_page()
            page.set_default_timeout(PAGE)
            page.goto(f"{served.url}/app/explorer.html")
            page.click("#prichexy-link")
            page.wait_for_url(f"{served.url}/prichexy")
            page.on("console", note)
            page.reload()
            row = page.locator("tr", has=page.locator(f"a[href$='{study}']"))
            assert row.locator("td.why").inner_text() == "No intake rule takes this study in."
            corner = page.evaluate("getComputedStyle(document.querySelector('.chip')).borderRadius")
            assert corner != "0px", "the style sheet is applied"
            page.remove_listener("console", note)  # what follows is Orthanc's own page
            row.locator("td.go a").click()
            page.wait_for_url(lambda url: "/app/explorer.html#study?uuid=" in url)
            page.wait_for_selector("#study-info li >> visible=true")
        finally:
            browser.close()
    assert complaints == [], "the content security policy lets everything of the page pass"


def test_the_process_of_orthanc_loads_no_numeric_library(redis: RedisServer) -> None:
    # On an environment that has them, so that one import would show.
    everything = sysconfig.get_path("purelib")
    if not (Path(everything) / "torch").exists():
        pytest.skip("torch is not installed here")
    paths = os.pathsep.join([str(REPO / "worker"), everything])
    with running_plugin_orthanc(_broker(redis), paths=paths) as orthanc:
        _store(orthanc, _radiograph())
        orthanc.wait_for({"queued": 1})
        assert orthanc.get("/prichexy").status_code == 200
        maps = Path(f"/proc/{orthanc.pid}/maps").read_text()
    assert "/sqlalchemy/" in maps, "the plugin's own libraries are there"
    for name in ("torch", "numpy", "monai", "cv2"):
        assert f"/{name}" not in maps
