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

from prichexy_testing.browsers import logged_in, running_browser
from prichexy_testing.dicoms import CANARIES, canary_values, radiograph_dataset, write
from prichexy_testing.plugin_fakes import announcement_of, report_of
from prichexy_testing.plugin_servers import REPO, PluginOrthanc, running_plugin_orthanc
from prichexy_testing.servers import RedisServer, free_port, running_redis, wait_until
from prichexy_worker.contract import (
    API_ROOT,
    REQUEST_HEADER,
    TASK_NAME,
    Claim,
    PatientsAsked,
    Reason,
    State,
    StudyMessage,
    StudyReport,
    TextPictures,
)

pytestmark = [pytest.mark.orthanc, pytest.mark.redis]

#: Seconds that a request may take while Redis hangs, in the best of some tries: what waits for
#: Redis waits two seconds, its sockets' time limit, in every try; a busy machine holds up some.
QUICK = 1.5
TRIES = 5
#: Seconds in which Orthanc ends although Redis hangs; it is killed, which shows, after many more.
STOPS = 40.0


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


def _announce_workers(orthanc: PluginOrthanc, count: int) -> None:
    """Let workers be known: two studies for each of them are handed to the broker."""
    for number in range(count):
        answer = orthanc.post_as_worker("/workers", announcement_of(f"worker-{number}").to_json())
        assert answer.is_success


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
    _announce_workers(orthanc, 30)
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
    shown = orthanc.get(f"/prichexy/studies/{message.job_id}").text
    assert f"../..{path}" in shown
    assert orthanc.ask("DELETE", f"/studies/{study_id}").status_code == 200
    assert orthanc.get(path).status_code == 404


def test_an_original_is_deleted_by_the_button_and_the_study_stays_exported(
    orthanc: PluginOrthanc,
) -> None:
    study_id = _store(orthanc, _radiograph())["ParentStudy"]
    orthanc.wait_for({"queued": 1})
    [study] = orthanc.studies()
    message = StudyMessage(study["job_id"], study_id, revision=1)
    for report in (
        report_of(message, State.PROCESSING),
        report_of(message, State.EXPORTED, attempt=1),
    ):
        assert orthanc.post_as_worker("/reports", report.to_json()).status_code == 200
    path = f"/prichexy/studies/{message.job_id}/delete"
    answer = orthanc.submit(path, {"reason": Reason.DELETED_DONE.value})
    assert answer.status_code == 303
    assert answer.headers["location"] == f"../{message.job_id}?note=deleted"
    wait_until(
        lambda: orthanc.get(f"/studies/{study_id}").status_code == 404, what="the original is gone"
    )
    [after] = orthanc.studies()
    assert (after["state"], after["revision"]) == ("exported", 1)
    page = orthanc.get(f"/prichexy/studies/{message.job_id}").text
    assert f"by <bdi>user {orthanc.user}</bdi>" in page
    assert Reason.DELETED_DONE.sentence in page


def test_what_arrives_in_a_pause_is_taken_in_when_it_goes_on_after_a_restart(
    orthanc: PluginOrthanc,
) -> None:
    pause = {"stage": "intake", "reason": Reason.PAUSED_WORK.value}
    assert orthanc.submit("/prichexy/pauses", pause).status_code == 303
    _store(orthanc, _radiograph("before"))
    orthanc.wait_for({"watched": 1})
    orthanc.stop()
    orthanc.start()
    _store(orthanc, _radiograph("after"))
    orthanc.wait_for({"watched": 2})
    [told] = orthanc.health()["pauses"]
    assert (told["stage"], told["reason"]) == ("intake", Reason.PAUSED_WORK.value)
    # Both have been stable for longer than it takes to decide.
    wait_until(
        lambda: all(orthanc.get(f"/studies/{one}").json()["IsStable"] for one in _ids(orthanc)),
        what="both are stable",
    )
    assert orthanc.counts() == {"watched": 2}
    assert orthanc.submit("/prichexy/pauses", {"stage": "intake"}).status_code == 303
    orthanc.wait_for({"queued": 2})
    assert orthanc.health()["pauses"] == []
    trail = orthanc.get("/prichexy/audit?deed=action").text
    assert trail.count(f"user {orthanc.user}") >= 2
    assert Reason.PAUSED_WORK.sentence in trail


def _ids(orthanc: PluginOrthanc) -> list[str]:
    return [study["study_id"] for study in orthanc.studies()]


def test_a_dry_run_on_a_real_orthanc_tells_what_other_rules_would_do(
    orthanc: PluginOrthanc,
) -> None:
    for number in range(3):
        _store(orthanc, _radiograph(f"chest {number}"))
    _store(orthanc, _radiograph("hip", body_part="HIP"))
    orthanc.wait_for({"queued": 3, "rejected": 1})
    rules = '[{"Name": "hips", "BodyPart": ["HIP"], "Targets": ["archive"]}]'
    answer = orthanc.submit("/prichexy/rules", {"rules": rules})
    assert answer.status_code == 200
    assert "<strong>4 of 4 studies</strong>" in answer.text
    assert "taken in for archive" in answer.text
    assert orthanc.counts() == {"queued": 3, "rejected": 1}


def test_who_asks_too_often_is_told_so_by_a_page_and_when_to_come_again(
    redis: RedisServer,
) -> None:
    section = {**_broker(redis), "Limits": {"SearchesPerMinute": 2, "RefusalsPerMinute": 2}}
    with running_plugin_orthanc(section) as orthanc:
        wait_until(lambda: bool(orthanc.health()["ledger"] == "ok"), what="the ledger is open")
        answers = [orthanc.get("/prichexy/audit") for _ in range(3)]
        forged = [
            orthanc.ask("POST", "/prichexy/backfill", content=b"token=1.0", headers={"x": "y"})
            for _ in range(3)
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 503]
    assert [answer.status_code for answer in forged] == [403, 403, 503]
    for answer in (answers[-1], forged[-1]):
        assert 1 <= int(answer.headers["Retry-After"]) <= 30
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "no-store" in answer.headers["Cache-Control"]
        assert "A moment, please" in answer.text


def test_a_persons_deed_is_found_in_the_trail_by_the_name_as_browsers_write_it(
    served: PluginOrthanc,
) -> None:
    # Nothing is there to be deleted: the trail says who was about to, all the same.
    served.ask("DELETE", "/studies/0f0f0f0f-0f0f0f0f-0f0f0f0f-0f0f0f0f-0f0f0f0f")
    actor = f"user {served.user}"
    form = urlencode({"actor": actor, "deed": "action"})
    page = served.get(f"/prichexy/audit?{form}").text
    assert f'name="actor" value="{actor}"' in page
    assert f"<td>{actor}</td>" in page
    assert "No line fits this search" not in page
    # What the page's own link to the file says, and another spelling of the same.
    for query in (form, form.replace("+", "%20")):
        rows = served.get(f"/prichexy/audit.csv?{query}").text.splitlines()[1:]
        assert rows
        assert all(f",{actor}," in row for row in rows)
    form = urlencode({"actor": f"{actor}+"})
    assert f'value="{actor}+"' in served.get(f"/prichexy/audit?{form}").text


@pytest.mark.parametrize("body", [b"[" * 900, b"[" * 60_000, b'{"a":' * 900])
def test_a_deeply_nested_body_is_refused_and_orthanc_lives(
    served: PluginOrthanc, body: bytes
) -> None:
    answer = served.ask_as_worker("POST", f"{API_ROOT}/reports", body)
    assert answer.status_code == 422
    assert served.get("/system").is_success


def test_a_worker_is_told_whether_the_study_that_it_has_is_of_two_patients(
    served: PluginOrthanc,
) -> None:
    study = _store(served, _radiograph("of two"))["ParentStudy"]
    wait_until(lambda: _state(served, study) == "pending", what="the study is taken in")
    [job] = (one["job_id"] for one in served.studies() if one["study_id"] == study)
    asked = PatientsAsked(job, 1, 1).to_json()

    def told() -> Any:
        answer = served.post_as_worker("/patients", asked)
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert told() == {"version": 3, "proceed": False, "patients": 0}
    claim = StudyReport(job, 1, State.PROCESSING, "worker-1")
    assert served.post_as_worker("/reports", claim.to_json()).json()["proceed"]
    assert told() == {"version": 3, "proceed": True, "patients": 1}
    uids = {
        "StudyInstanceUID": generate_uid(entropy_srcs=["study", "of two"]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=["series", "of another"]),
        "SOPInstanceUID": generate_uid(entropy_srcs=["instance", "of another"]),
    }
    identity = {**CANARIES, **uids, "PatientID": "ANOTHER"}
    other = _store(served, write(radiograph_dataset(identity=identity)))["ParentStudy"]
    assert other != study
    assert told() == {"version": 3, "proceed": True, "patients": 2}


def test_the_workers_password_opens_only_what_workers_use(served: PluginOrthanc) -> None:
    stored = _store(served, _radiograph("kept", body_part="HIP"))
    study, instance = f"/studies/{stored['ParentStudy']}", f"/instances/{stored['ID']}"

    def status(method: str, path: str, content: bytes = b"{}") -> int:
        return served.ask_as_worker(method, path, content).status_code

    for path in ("/system", study, f"{study}/instances", f"{instance}/file"):
        assert status("GET", path) == 200
        assert status("GET", f"{path}?_method=delete") == 403
    assert status("GET", f"{API_ROOT}/health") == 200
    for method, path in (
        ("DELETE", study),
        ("DELETE", instance),
        ("DELETE", f"/{study}/"),
        ("PUT", "/modalities/elsewhere"),
        ("POST", "/instances"),
        ("POST", "/modalities/elsewhere/store"),
        ("POST", "/tools/find"),
        ("POST", "/tools/lookup"),
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
            found = re.search(r'name="token" value="([^"]+)"', orthanc.get("/prichexy").text)
            assert found is not None
            return found[1]

        assert press(12, "0" * 64).status_code == 403
        assert orthanc.health()["backfill"] is None
        begun = press(12, token())
        assert begun.status_code == 303
        assert begun.headers["location"] == "../prichexy?note=begun#backfill-title"
        wait_until(lambda: bool(orthanc.health()["backfill"]["found"]), what="the first are found")
        orthanc.kill()
        orthanc.start()
        wait_until(lambda: bool(orthanc.health()["ledger"] == "ok"), what="the ledger is open")
        assert press(6000, token()).status_code == 303
        _announce_workers(orthanc, 7)
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
    # Orthanc sends its own "Method Not Allowed", without a page: so ours arrives as a bad request.
    refused = served.post("/prichexy/nothing", b"")
    assert (refused.status_code, refused.headers.get_list("allow")) == (400, ["GET"])
    moved = served.get("/prichexy/prichexy/static/dashboard.css")
    assert moved.status_code == 302
    assert moved.headers["location"] == "../../../prichexy/static/dashboard.css"
    assert "/prichexy" in served.get("/plugins/explorer.js").text


@pytest.mark.browser
def test_a_person_finds_the_page_from_orthanc_explorer(served: PluginOrthanc) -> None:
    # Other tests leave studies in this Orthanc: what is waited for and looked at is this one.
    study = _store(served, _radiograph("seen", body_part="HIP"))["ParentStudy"]
    wait_until(lambda: _state(served, study) == "rejected", what="the study is decided")
    complaints: list[str] = []

    def note(message: Any) -> None:
        complaints.append(message.text)

    with running_browser() as browser:
        page = logged_in(browser, served.user, served.password)
        page.goto(f"{served.url}/app/explorer.html")
        page.click("#prichexy-link")
        page.wait_for_url(f"{served.url}/prichexy")
        page.on("console", note)
        page.reload()
        page.click("nav a:text-is('Studies')")
        row = page.locator("tr", has=page.locator(f"a[href$='{study}']"))
        assert row.locator("td.why").inner_text() == "No intake rule takes this study in."
        corner = page.evaluate("getComputedStyle(document.querySelector('.chip')).borderRadius")
        assert corner != "0px", "the style sheet is applied"
        page.remove_listener("console", note)  # what follows is Orthanc's own page
        row.locator("td.go a").click()
        page.wait_for_url(lambda url: "/app/explorer.html#study?uuid=" in url)
        page.wait_for_selector("#study-info li >> visible=true")
    assert complaints == [], "the content security policy lets everything of the page pass"


@pytest.mark.browser
def test_orthanc_explorer_shows_at_a_study_where_it_is_and_leads_to_what_can_be_done(
    served: PluginOrthanc,
) -> None:
    study = _store(served, _radiograph("explored", body_part="HIP"))["ParentStudy"]
    wait_until(lambda: _state(served, study) == "rejected", what="the study is decided")
    other = _store(served, _radiograph("explored too", body_part="HIP"))["ParentStudy"]
    wait_until(lambda: _state(served, other) == "rejected", what="the other one is decided")
    jobs = {one["study_id"]: one["job_id"] for one in served.studies()}
    errors: list[str] = []
    with running_browser() as browser:
        for name in (study, other):
            page = logged_in(browser, served.user, served.password)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(f"{served.url}/app/explorer.html#study?uuid={name}")
            part = page.locator("#prichexy-study")
            part.locator("text=Open in PriCheXy").wait_for()
            assert "rejected: No intake rule takes this study in." in part.inner_text()
            links = part.locator("a").evaluate_all("all => all.map(one => one.pathname)")
            own = f"/prichexy/studies/{jobs[name]}"
            assert links[:2] == [own, f"{own}/retry"]
            assert all(link.startswith(own) for link in links)
        part.locator("text=Try again").click()
        page.wait_for_url(lambda url: url.endswith(f"{jobs[other]}/retry"))
        # The page of the dashboard asks, with a token of its own.
        page.click("button:text-is('Try again')")
        page.wait_for_url(lambda url: "note=retried" in url)
    assert errors == []


def test_the_process_of_orthanc_loads_no_numeric_library(redis: RedisServer) -> None:
    # On an environment that has them, so that one import would show.
    everything = sysconfig.get_path("purelib")
    if not (Path(everything) / "torch").exists():
        pytest.skip("torch is not installed here")
    paths = os.pathsep.join([str(REPO / "worker"), str(REPO / "model"), everything])
    with running_plugin_orthanc(_broker(redis), paths=paths) as orthanc:
        _store(orthanc, _radiograph())
        orthanc.wait_for({"queued": 1})
        assert orthanc.get("/prichexy").status_code == 200
        maps = Path(f"/proc/{orthanc.pid}/maps").read_text()
    assert "/sqlalchemy/" in maps, "the plugin's own libraries are there"
    for name in ("torch", "numpy", "monai", "cv2"):
        assert f"/{name}" not in maps
