"""Celery on a real Redis: quick to fail, and told apart from what the environment says."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace

import pytest
from kombu.connection import Connection
from pydantic import SecretStr
from redis import Redis

from prichexy_plugin.broker import BrokerUnavailable, RedisBroker
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.servers import free_port, running_redis
from prichexy_worker.contract import StudyMessage

MESSAGE = StudyMessage(job_id="0" * 32, study_id=orthanc_id("a"), revision=1)


@pytest.mark.redis
@pytest.mark.parametrize("password", [None, "p@ss:w/rd?%20"])
def test_a_message_is_in_the_named_queue_after_sending(
    monkeypatch: pytest.MonkeyPatch, password: str | None
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", f"redis://127.0.0.1:{free_port()}/0")
    with running_redis(password=password) as redis:
        secret = None if password is None else SecretStr(password)
        broker = RedisBroker(redis.url, secret, "a-queue")
        assert broker.waiting() == 0
        broker.send(MESSAGE)
        broker.send(MESSAGE)
        assert broker.waiting() == 2
        assert redis.length("a-queue") == 2
        broker.close()


@pytest.mark.redis
def test_what_a_worker_has_taken_is_counted_until_it_is_acknowledged() -> None:
    with running_redis() as redis:
        broker = RedisBroker(redis.url, None, "q")
        other = replace(MESSAGE, job_id="1" * 32)
        both = {MESSAGE.job_id, other.job_id}
        broker.send(MESSAGE)
        broker.send(other)
        assert broker.unacknowledged() == 0
        with Connection(redis.url) as connection:
            taken = connection.SimpleQueue("q").get(timeout=120)
            assert broker.waiting() == 1
            assert broker.unacknowledged() == 1
            assert broker.held(both) == both
            assert broker.held({other.job_id, "2" * 32}) == {other.job_id}
            taken.ack()
            assert broker.unacknowledged() == 0
            assert broker.held(both) == {other.job_id}
        for raw in ('{"body": "of somebody else"}', "no JSON", "[]"):
            redis.command("LPUSH", "q", raw)
            redis.command("HSET", "unacked", raw, raw)
        assert broker.held(both) == {other.job_id}
        broker.close()


@pytest.mark.redis
def test_what_it_has_is_found_among_thousands_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [str(number) for number in range(12_000)]
    with running_redis() as redis, closing(Redis.from_url(redis.url)) as server:
        broker = RedisBroker(redis.url, None, "q")
        broker.send(MESSAGE)
        taken = replace(MESSAGE, job_id="1" * 32)
        broker.send(taken, "gpu")
        with Connection(redis.url) as connection:
            message = connection.SimpleQueue("gpu").get(timeout=120)
            # As those of another gateway that uses the same database.
            server.hset("unacked", mapping=dict.fromkeys(others, '[{"body": ""}, "", ""]'))
            server.lpush("q", *others)
            sought = {MESSAGE.job_id, taken.job_id, "2" * 32}
            assert broker.held(sought, ("", "gpu")) == {MESSAGE.job_id, taken.job_id}
            message.ack()
            assert broker.held(sought, ("", "gpu")) == {MESSAGE.job_id}
            monkeypatch.setattr("prichexy_plugin.broker._MOST_READ", 20_000)
            assert broker.held(sought, ("", "gpu")) is None, "nobody can tell"
            assert broker.held({MESSAGE.job_id}, ("", "gpu")) == {MESSAGE.job_id}, "nor need they"
        broker.close()


@pytest.mark.redis
def test_a_wrong_password_is_said_without_it() -> None:
    with running_redis(password="right") as redis:
        broker = RedisBroker(redis.url, SecretStr("wrong-one"), "q")
        for work in (broker.waiting, broker.unacknowledged, lambda: broker.send(MESSAGE)):
            with pytest.raises(BrokerUnavailable, match=r"Authentication|Operational") as it:
                work()
            assert "wrong-one" not in str(it.value)
        broker.close()


@pytest.mark.redis
def test_a_broker_that_was_away_takes_messages_again() -> None:
    with running_redis() as redis:
        broker = RedisBroker(redis.url, None, "q")
        broker.send(MESSAGE)
        redis.stop()
        begin = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            broker.send(MESSAGE)
        # Celery's and kombu's own retries would take minutes.
        assert time.monotonic() - begin < 30
        redis.start()
        broker.send(MESSAGE)
        assert broker.waiting() == 2
        broker.close()


def test_where_nothing_listens_the_address_is_named() -> None:
    port = free_port()
    broker = RedisBroker(f"redis://127.0.0.1:{port}/0", None, "q")
    with pytest.raises(BrokerUnavailable, match=rf"^Redis at 127.0.0.1:{port}: ConnectionError$"):
        broker.waiting()
    with pytest.raises(BrokerUnavailable, match=rf"^Redis at 127.0.0.1:{port}: \w+Error$"):
        broker.send(MESSAGE)
    broker.close()
