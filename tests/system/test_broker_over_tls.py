"""Plugin and worker meet at a Redis that wants a user, a password, TLS and their certificates."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr

from prichexy_plugin.broker import BrokerTls, BrokerUnavailable, RedisBroker
from prichexy_testing.certificates import Authority, Pair
from prichexy_testing.fakes_worker import study_message
from prichexy_testing.servers import RedisServer, running_redis, wait_until
from prichexy_testing.worker_process import FINISH
from prichexy_worker.app import broker_tls
from prichexy_worker.errors import Misconfigured
from prichexy_worker.settings import Broker

pytestmark = pytest.mark.redis

PASSWORD = "p/ss:w@rd%41 of the gateway".replace(" ", "_")
USER = "prichexy"
REPO = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Place:
    """A Redis, whom to trust, and who we are."""

    folder: Path
    redis: RedisServer
    authority: Authority
    own: Pair

    def broker(self, **files: Path | None) -> RedisBroker:
        tls = {
            "ca_file": self.authority.certificate,
            "certificate_file": self.own.certificate,
            "key_file": self.own.key,
            **files,
        }
        return RedisBroker(
            self.redis.url, SecretStr(PASSWORD), "q", user=USER, tls=BrokerTls(**tls)
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    authority = Authority(tmp_path)
    server = authority.pair("server")
    with running_redis(password=PASSWORD, user=USER, tls=(authority.certificate, server)) as redis:
        yield Place(tmp_path, redis, authority, authority.pair("gateway", host=""))


def test_a_message_of_the_plugin_comes_to_a_worker_and_no_secret_is_shown(place: Place) -> None:
    broker = place.broker()
    broker.send(study_message(FINISH))
    assert broker.waiting() == 1
    job = study_message(FINISH).job_id
    assert broker.held({job}) == {job}
    (place.folder / "secret").write_text(PASSWORD)
    settings = {
        "INGEST__URL": "http://127.0.0.1:1",
        "BROKER__URL": place.redis.url,
        "BROKER__USER": USER,
        "BROKER__PASSWORD_FILE": str(place.folder / "secret"),
        "BROKER__CA_FILE": str(place.authority.certificate),
        "BROKER__CERTIFICATE_FILE": str(place.own.certificate),
        "BROKER__KEY_FILE": str(place.own.key),
        "BROKER__QUEUES": '["gpu", "q"]',
        "EXPORT__KIND": "folder",
        "EXPORT__FOLDER": str(place.folder / "export"),
        "PSEUDONYMS__KEY_FILE": str(place.folder / "key"),
        "MODEL__BUNDLE": str(place.folder),
    }
    areas = [str(REPO / area) for area in ("plugin", "worker", "model", "tests")]
    environment = os.environ | {f"PRICHEXY_WORKER_{key}": it for key, it in settings.items()}
    environment["PYTHONPATH"] = os.pathsep.join(areas)
    with (place.folder / "log").open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "prichexy_testing.worker_process", str(place.folder)],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        finished = place.folder / "finished"
        wait_until(finished.exists, what="the study is finished")
        broker.send(study_message(FINISH), "gpu")
        wait_until(lambda: finished.read_text() == "1\n1\n", what="the other queue is served")
        wait_until(lambda: broker.unacknowledged() == 0, what="all are acknowledged")
        shown = Path(f"/proc/{worker.pid}/cmdline").read_bytes()
        place.redis.stop()
        said = (place.folder / "log").read_text
        wait_until(lambda: "ConnectionError" in said(), what="the worker misses its broker")
        with pytest.raises(BrokerUnavailable) as away:
            broker.waiting()
        place.redis.start()
        broker.send(study_message(FINISH))
        wait_until(lambda: finished.read_text() == "1\n1\n1\n", what="it goes on")
    finally:
        worker.kill()
        worker.wait()
    broker.close()
    for secret in (PASSWORD, "p%2Fss"):
        assert secret not in said()
        assert secret.encode() not in shown
        assert secret not in str(away.value)


def test_who_is_not_trusted_or_has_no_certificate_gets_nothing(
    place: Place, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    stranger = Authority(other, "stranger")
    for broker in (
        place.broker(ca_file=stranger.certificate),
        place.broker(ca_file=None),
        place.broker(certificate_file=None, key_file=None),
    ):
        for work in (broker.waiting, lambda broker=broker: broker.send(study_message(FINISH))):
            with pytest.raises(BrokerUnavailable) as refused:
                work()
            assert PASSWORD not in str(refused.value)
        broker.close()
    assert place.redis.length("q") == 0


def test_a_server_whose_certificate_is_for_another_name_is_not_spoken_to(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    named = authority.pair("elsewhere", host="127.0.0.9")
    with running_redis(password=PASSWORD, user=USER, tls=(authority.certificate, named)) as redis:
        place = Place(tmp_path, redis, authority, authority.pair("gateway", host=""))
        broker = place.broker()
        with pytest.raises(BrokerUnavailable):
            broker.send(study_message(FINISH))
        broker.close()
        assert redis.length("q") == 0


def test_a_worker_names_the_file_that_it_cannot_use(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.pair("gateway", host="")
    files = {"ca_file": authority.certificate, "certificate_file": own.certificate}
    broker = Broker(url="rediss://127.0.0.1:1/0", key_file=own.key, **files)
    assert broker_tls(broker) is not None
    own.key.chmod(0o644)
    with pytest.raises(Misconfigured, match="chmod 600"):
        broker_tls(broker)
    own.key.unlink()
    with pytest.raises(Misconfigured, match="key_file"):
        broker_tls(broker)
