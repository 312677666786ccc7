"""A real worker process on a real Redis: nothing is lost, nothing is said but ids."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from celery import Celery

from prichexy_testing.fakes_worker import study_message
from prichexy_testing.faults.disks import small_disk
from prichexy_testing.servers import RedisServer, running_redis, wait_until
from prichexy_testing.worker_process import (
    FINISH,
    LINGER,
    LINGER_AND_LEAVE,
    LINGER_AND_RETRY,
    RETRY_ONCE,
)
from prichexy_worker.app import broker_address, create_app
from prichexy_worker.contract import CONTRACT_VERSION, TASK_NAME
from prichexy_worker.settings import Broker, Settings, load_settings

pytestmark = pytest.mark.redis

PASSWORD = "p/ss:w@rd%41"
REDELIVERY = "PRICHEXY_WORKER_BROKER__REDELIVERY_SECONDS"
REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with running_redis(password=PASSWORD) as server:
        yield server


class Place:
    """A folder, a Redis, and worker processes that use them."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        self.folder = folder
        self.redis = redis
        self.queue = "test"
        secret = folder / "broker-password"
        secret.write_text(f"{PASSWORD}\n")
        self.settings = {
            "PRICHEXY_WORKER_INGEST__URL": "http://127.0.0.1:1",
            "PRICHEXY_WORKER_BROKER__URL": redis.url,
            "PRICHEXY_WORKER_BROKER__PASSWORD_FILE": str(secret),
            "PRICHEXY_WORKER_BROKER__QUEUE": self.queue,
            # So long that no busy machine makes the broker take a living worker for lost.
            REDELIVERY: "3600",
            "PRICHEXY_WORKER_EXPORT__KIND": "folder",
            "PRICHEXY_WORKER_EXPORT__FOLDER": str(folder / "export"),
            "PRICHEXY_WORKER_PSEUDONYMS__KEY_FILE": str(folder / "key"),
            "PRICHEXY_WORKER_MODEL__BUNDLE": str(folder),
            "PRICHEXY_WORKER_WORKER_ID": "worker-under-test",
        }

    @contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        areas = [str(REPO / area) for area in ("plugin", "worker", "model", "tests")]
        environment = {
            **os.environ,
            **self.settings,
            "PYTHONPATH": os.pathsep.join(areas),
            "OMP_NUM_THREADS": "1",
        }
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "prichexy_testing.worker_process", str(self.folder)],
                env=environment,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def send(self, body: Mapping[str, object], name: str = TASK_NAME) -> None:
        """Publish as the plugin does: by the task's name, with the message as only argument."""
        app = Celery("plugin", broker=self.address(), set_as_current=False)
        try:
            app.send_task(name, args=[body], queue=self.queue, ignore_result=True)
        finally:
            app.close()

    def address(self) -> str:
        broker = Broker.model_validate({"url": self.redis.url, "password": PASSWORD})
        return broker_address(broker)

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def looks(self) -> int:
        """How often the worker did what it does between studies."""
        return len("".join(self.lines("looks")))

    def wait_for(self, name: str, lines: list[str]) -> None:
        wait_until(lambda: self.lines(name) == lines, what=f"{name} has {lines}")

    def wait_until_acknowledged(self) -> None:
        wait_until(lambda: self.held() == 0, what="all messages are acknowledged")

    def held(self) -> int:
        """Messages that are in the queue or given to a worker, not yet acknowledged."""
        unacked = int(self.redis.command("HLEN", "unacked").removeprefix(b":"))
        return self.redis.length(self.queue) + unacked


@pytest.fixture
def place(tmp_path: Path, redis: RedisServer) -> Place:
    return Place(tmp_path, redis)


def message(revision: int) -> dict[str, object]:
    return study_message(revision).to_json()


def test_a_study_sent_by_the_tasks_name_is_worked_on_and_acknowledged(place: Place) -> None:
    place.send(message(FINISH))
    with place.worker():
        place.wait_for("finished", ["1"])
        place.wait_until_acknowledged()


def test_a_study_that_failed_goes_back_and_is_tried_again(place: Place) -> None:
    with place.worker():
        place.send(message(RETRY_ONCE))
        place.wait_for("attempts", ["2", "2"])
        place.wait_for("finished", ["2"])
        place.wait_until_acknowledged()


def test_bad_messages_are_dropped_without_a_word_of_their_content(place: Place) -> None:
    place.send({**message(FINISH), "PatientName": "DOE^JANE"})
    place.send({"DOE^JANE": 1})
    place.send(message(FINISH), name="prichexy.DOE")
    place.redis.command("LPUSH", place.queue, _raw({"DOE^JANE": 1}, "application/json"))
    place.redis.command(
        "LPUSH", place.queue, _raw({"DOE^JANE": 1}, "application/x-python-serialize")
    )
    with place.worker():
        place.wait_until_acknowledged()
        place.send(message(FINISH))
        place.wait_for("finished", ["1"])
    assert place.lines("attempts") == ["1"]
    assert place.log().count("refused a message that is not of this version's contract") == 2
    assert "DOE" not in place.log()
    assert "1933" not in place.log()


def _raw(body: object, content_type: str) -> str:
    """Give a message that no Celery wrote, in the form that kombu stores."""
    properties = {
        "delivery_tag": str(uuid.uuid4()),
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": "test"},
        "priority": 0,
    }
    return json.dumps(
        {
            "body": json.dumps(body),
            "content-encoding": "utf-8",
            "content-type": content_type,
            "headers": {"note": "DOE^JANE"},
            "properties": properties,
        }
    )


def test_sigterm_lets_the_study_end_and_the_worker_exit_with_success(place: Place) -> None:
    with place.worker() as process:
        place.send(message(LINGER))
        place.wait_for("attempts", ["3"])
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        (place.folder / "release").touch()
        assert process.wait(120) == 0
    assert place.lines("finished") == ["3"]
    assert place.held() == 0


def test_a_worker_that_is_to_stop_gives_its_study_back_in_time_and_another_takes_it_at_once(
    place: Place,
) -> None:
    place.settings["PRICHEXY_WORKER_LIMITS__STOP_SECONDS"] = "0.5"
    with place.worker() as process:
        place.send(message(LINGER_AND_LEAVE))
        place.wait_for("attempts", ["5"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    assert place.redis.length(place.queue) == 1
    assert place.held() == 1, "it is there once"
    with place.worker():
        place.wait_for("finished", ["5"])
        place.wait_until_acknowledged()
    assert place.lines("attempts") == ["5", "5"]


def test_a_message_of_a_later_version_waits_for_a_newer_worker(place: Place) -> None:
    place.send({**message(FINISH), "version": CONTRACT_VERSION + 1, "more": "DOE^JANE"})
    with place.worker():
        wait_until(lambda: "gave back a message" in place.log(), what="it is given back")
        place.send(message(RETRY_ONCE))
        place.wait_for("finished", ["2"])
        wait_until(lambda: place.held() == 1, what="the other one is acknowledged")
        assert place.lines("attempts") == ["2", "2"]
    assert "DOE" not in place.log()


def test_a_worker_takes_from_the_queues_that_it_names_and_from_no_other(place: Place) -> None:
    place.settings["PRICHEXY_WORKER_BROKER__QUEUES"] = '["gpu", "cpu"]'
    place.send(message(LINGER))
    with place.worker():
        for queue, kind in (("cpu", RETRY_ONCE), ("gpu", FINISH)):
            place.queue = queue
            place.send(message(kind))
        wait_until(lambda: set(place.lines("finished")) == {"1", "2"}, what="both are worked on")
        wait_until(
            lambda: place.redis.command("HLEN", "unacked") == b":0", what="they are acknowledged"
        )
    assert place.redis.length("test") == 1
    assert "3" not in place.lines("attempts")


def test_a_study_that_waits_for_its_next_attempt_outlives_the_worker(place: Place) -> None:
    with place.worker() as process:
        place.send(message(LINGER))
        place.wait_for("attempts", ["3"])
        place.send(message(RETRY_ONCE))
        (place.folder / "release").touch()
        place.wait_for("attempts", ["3", "2"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    if place.lines("finished") == ["3"]:
        assert place.redis.length(place.queue) == 1
    with place.worker():
        place.wait_for("finished", ["3", "2"])


def test_a_study_whose_worker_was_killed_goes_to_another(place: Place) -> None:
    place.settings[REDELIVERY] = "5"
    with place.worker() as process:
        place.send(message(LINGER))
        place.wait_for("attempts", ["3"])
        process.kill()
        process.wait()
    assert place.held() == 1
    (place.folder / "release").touch()
    with place.worker():
        # On a machine that held this worker up for those seconds, too, perhaps once more.
        wait_until(lambda: set(place.lines("finished")) == {"3"}, what="the study is finished")
        place.wait_until_acknowledged()


def test_a_worker_outlives_its_broker(place: Place) -> None:
    place.redis.stop()
    with place.worker():
        wait_until(lambda: "ConnectionError" in place.log(), what="the worker misses its broker")
        place.redis.start()
        place.send(message(FINISH))
        place.wait_for("finished", ["1"])
        place.wait_until_acknowledged()
        place.redis.stop()
        place.redis.start()
        place.send(message(FINISH))
        place.wait_for("finished", ["1", "1"])
    assert PASSWORD not in place.log()
    assert "p%2Fss" not in place.log()


@pytest.mark.parametrize("revision", [LINGER, LINGER_AND_RETRY])
def test_a_worker_outlives_a_broker_that_goes_within_a_study(place: Place, revision: int) -> None:
    place.settings[REDELIVERY] = "5"
    with place.worker():
        place.send(message(revision))
        place.wait_for("attempts", [f"{revision}"])
        place.redis.stop()
        (place.folder / "release").touch()
        wait_until(lambda: "ConnectionError" in place.log(), what="the worker misses its broker")
        place.redis.start()
        place.send(message(FINISH))
        wait_until(lambda: "1" in place.lines("finished"), what="the next study ends")
        # The broker heard nothing of the first one's end, so it comes again: nothing is lost.
        wait_until(lambda: len(place.lines("attempts")) > 2, what="the first one comes again")
        wait_until(lambda: str(revision) in place.lines("finished"), what="it ends")
        wait_until(lambda: place.held() == 0, what="all are acknowledged")


def fill(redis: RedisServer) -> None:
    """Have the Redis refuse what needs memory, as one that reached a small maxmemory does."""
    assert redis.command("CONFIG", "SET", "maxmemory-policy", "noeviction") == b"+OK"
    assert redis.command("CONFIG", "SET", "maxmemory", "4mb") == b"+OK"
    for number in range(10_000):
        if redis.command("SET", f"filling{number}", "x" * 65536).startswith(b"-OOM"):
            break
    # What is smaller is refused as well, once nothing at all is left.
    for number in range(100_000):
        if redis.command("SADD", "small", str(number)).startswith(b"-OOM"):
            return
    raise AssertionError("the Redis is not full")


def make_room(redis: RedisServer) -> None:
    assert redis.command("CONFIG", "SET", "maxmemory", "0") == b"+OK"


def test_a_worker_starts_with_a_full_redis_and_works_once_there_is_room(place: Place) -> None:
    place.send(message(FINISH))
    fill(place.redis)
    with place.worker() as process:
        wait_until(lambda: "the broker refuses" in place.log(), what="it is refused")
        assert process.poll() is None
        make_room(place.redis)
        place.wait_for("finished", ["1"])
        place.wait_until_acknowledged()
    assert PASSWORD not in place.log()


@pytest.mark.parametrize("revision", [LINGER, LINGER_AND_RETRY])
def test_a_worker_outlives_a_redis_that_gets_full_within_a_study(
    place: Place, revision: int
) -> None:
    place.settings[REDELIVERY] = "5"
    with place.worker() as process:
        place.send(message(revision))
        place.wait_for("attempts", [f"{revision}"])
        fill(place.redis)
        (place.folder / "release").touch()
        if revision == LINGER:
            place.wait_for("finished", ["3"])
        else:
            wait_until(lambda: "the broker refuses" in place.log(), what="it is refused")
        assert process.poll() is None
        make_room(place.redis)

        def ends() -> bool:
            if str(revision) in place.lines("finished"):
                return True
            if place.held() == 0:
                # A worker popped it at a moment in which the Redis took no note of that: it is
                # there no more. The plugin misses it and sends it again (``Broker.held``).
                place.send(message(revision))
            return False

        wait_until(ends, what="it ends")
        wait_until(lambda: place.held() == 0, what="all are acknowledged")
        place.send(message(FINISH))
        wait_until(lambda: "1" in place.lines("finished"), what="the next study ends")


def test_a_worker_outlives_a_redis_whose_disk_is_full(place: Place) -> None:
    place.redis.stop()
    with small_disk(place.redis.folder, 4) as disk:
        place.redis.start()
        with place.worker() as process:
            place.send(message(FINISH))
            place.wait_for("finished", ["1"])
            place.wait_until_acknowledged()
            place.send(message(LINGER))
            place.wait_for("attempts", ["1", "3"])
            disk.fill()
            wait_until(
                lambda: place.redis.command("SET", "more", "x").startswith(b"-MISCONF"),
                what="Redis refuses",
            )
            (place.folder / "release").touch()
            wait_until(lambda: "the broker refuses (MISCONF)" in place.log(), what="it is refused")
            assert process.poll() is None
            disk.clear()
            place.settings[REDELIVERY] = "5"
            wait_until(
                lambda: place.redis.command("SET", "more", "x") == b"+OK", what="Redis takes it"
            )
            place.send(message(FINISH))
            wait_until(lambda: place.lines("finished").count("1") == 2, what="the next one ends")
        place.redis.stop()


def test_a_worker_that_waits_for_room_in_a_full_redis_can_be_stopped(place: Place) -> None:
    fill(place.redis)
    with place.worker() as process:
        wait_until(lambda: "the broker refuses" in place.log(), what="it is refused")
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0


def test_what_is_called_between_studies_is_not_called_within_one(place: Place) -> None:
    with place.worker():
        wait_until(lambda: place.looks() > 2, what="it is called while there is no study")
        place.send(message(LINGER))
        place.wait_for("attempts", ["3"])
        before = place.looks()
        assert not threading.Event().wait(1)
        assert place.looks() == before
        (place.folder / "release").touch()
        wait_until(lambda: place.looks() > before + 2, what="it is called again")


def test_what_is_called_between_studies_is_called_after_an_outage_as_well(place: Place) -> None:
    with place.worker():
        place.send(message(FINISH))
        place.wait_for("finished", ["1"])
        place.redis.stop()
        wait_until(lambda: "ConnectionError" in place.log(), what="the worker misses its broker")
        place.redis.start()
        place.send(message(FINISH))
        place.wait_for("finished", ["1", "1"])
        before = place.looks()
        wait_until(lambda: place.looks() > before + 2, what="it is called again")


def test_the_app_reads_json_only_and_leaves_the_process_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PRICHEXY_WORKER_CONFIG", raising=False)
    for key, value in place.settings.items():
        monkeypatch.setenv(key, value)
    settings: Settings = load_settings()
    app = create_app(settings)
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_acks_late
    assert app.conf.task_reject_on_worker_lost
    assert app.conf.worker_prefetch_multiplier == 1
    assert app.conf.broker_transport_options["visibility_timeout"] == 3600
    assert not app.conf.worker_enable_remote_control
    assert PASSWORD not in repr(app)


def test_a_broker_on_a_socket_takes_the_password_as_well(place: Place) -> None:
    url = f"redis+socket://{place.redis.folder}/redis.sock"
    place.settings["PRICHEXY_WORKER_BROKER__URL"] = url
    place.send(message(FINISH))
    with place.worker():
        place.wait_for("finished", ["1"])
