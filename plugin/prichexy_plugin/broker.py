"""The broker, as a port, and Celery on Redis behind it."""

from __future__ import annotations

import base64
import json
from typing import Any, Final, Protocol
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

import redis
from celery import Celery
from kombu.connection import Connection
from kombu.exceptions import KombuError
from pydantic import SecretStr
from redis.backoff import NoBackoff
from redis.retry import Retry

from prichexy_worker.contract import TASK_NAME, StudyMessage

__all__ = ["Broker", "BrokerUnavailable", "RedisBroker"]

_SOCKET_SECONDS: Final = 2.0
#: The relay keeps fewer there; more are another gateway's, or of before it did so.
_MOST_READ: Final = 5000
#: Where kombu keeps what a worker has taken until it is acknowledged (``Channel.unacked_key``).
_UNACKNOWLEDGED: Final = "unacked"


class BrokerUnavailable(Exception):
    """The broker did not take a message or did not answer; the text names no secret."""


class Broker(Protocol):
    """What the relay needs. Every method raises BrokerUnavailable within a few seconds."""

    def send(self, message: StudyMessage) -> None:
        """Hand a message over; after a return the broker has it."""

    def waiting(self) -> int:
        """Say how many messages wait for a worker; also the way to see whether it answers."""
        ...

    def unacknowledged(self) -> int:
        """Say how many messages workers have taken and not finished, those in a pause included."""
        ...

    def jobs(self) -> frozenset[str] | None:
        """Name the jobs whose messages it has, waiting or taken; None when they are too many."""
        ...

    def close(self) -> None:
        """Let go of the connections."""


class RedisBroker:
    """Sends by the task's name: nothing of the worker is imported here.

    Celery's defaults would wait for a hung Redis for ever, so every socket has a time limit and
    nothing is retried here: the relay does that.
    """

    def __init__(self, url: str, password: SecretStr | None, queue: str) -> None:
        parts = urlsplit(url)
        self._where = f"{parts.hostname}:{parts.port or 6379}"
        self._queue = queue
        address = url if password is None else _with_password(parts, password)
        self._redis = redis.Redis.from_url(
            address,
            socket_timeout=_SOCKET_SECONDS,
            socket_connect_timeout=_SOCKET_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._address = address
        self._celery = Celery("prichexy_plugin", set_as_current=False)
        self._celery.conf.update(
            broker_transport_options={
                "socket_timeout": _SOCKET_SECONDS,
                "socket_connect_timeout": _SOCKET_SECONDS,
                "max_retries": 0,
            },
            task_default_queue=queue,
            task_ignore_result=True,
            task_publish_retry=False,
            task_serializer="json",
        )
        self._connection: Connection | None = None

    def send(self, message: StudyMessage) -> None:
        """Hand a message over; after a return the broker has it."""
        try:
            if self._connection is None:
                # By its address: a CELERY_BROKER_URL in the environment would win otherwise.
                self._connection = self._celery.connection_for_write(self._address)
            producer = self._celery.amqp.Producer(self._connection, auto_declare=False)
            self._celery.send_task(
                TASK_NAME,
                args=(message.to_json(),),
                queue=self._queue,
                producer=producer,
                retry=False,
            )
        except (KombuError, redis.RedisError, OSError) as error:
            self.close()
            raise self._unavailable(error) from error

    def waiting(self) -> int:
        """Say how many messages wait for a worker; also the way to see whether it answers."""
        try:
            return int(self._redis.llen(self._queue))
        except (redis.RedisError, OSError) as error:
            raise self._unavailable(error) from error

    def unacknowledged(self) -> int:
        """Say how many messages workers have taken and not finished, those in a pause included.

        Those of every queue in this Redis database: kombu keeps them in one hash.
        """
        try:
            return int(self._redis.hlen(_UNACKNOWLEDGED))
        except (redis.RedisError, OSError) as error:
            raise self._unavailable(error) from error

    def jobs(self) -> frozenset[str] | None:
        """Name the jobs whose messages it has, waiting or taken; None when they are too many.

        A message that cannot be read is passed over. One on its way from the queue to a worker may
        be missed: it is in neither place for a moment.
        """
        try:
            if self.waiting() + self.unacknowledged() > _MOST_READ:
                return None
            waiting = [json.loads(raw) for raw in self._redis.lrange(self._queue, 0, -1)]
            taken = [json.loads(raw)[0] for raw in self._redis.hvals(_UNACKNOWLEDGED)]
        except (redis.RedisError, OSError) as error:
            raise self._unavailable(error) from error
        except (ValueError, LookupError, TypeError):
            return None
        found = (_job_of(envelope) for envelope in (*waiting, *taken))
        return frozenset(job for job in found if job is not None)

    def close(self) -> None:
        """Let go of the connections."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()  # type: ignore[no-untyped-call]
        self._redis.close()

    def _unavailable(self, error: Exception) -> BrokerUnavailable:
        return BrokerUnavailable(f"Redis at {self._where}: {type(error).__name__}")


def _job_of(envelope: Any) -> str | None:
    """Read the job's id from a message as kombu keeps it; None when it is none of ours."""
    try:
        arguments = json.loads(base64.b64decode(envelope["body"]))[0]
        return StudyMessage.from_json(arguments[0]).job_id
    except (ValueError, LookupError, TypeError):
        return None


def _with_password(parts: SplitResult, password: SecretStr) -> str:
    """Give the address as redis-py and kombu take it; it stays inside this object."""
    secret = quote(password.get_secret_value(), safe="")
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:{secret}@{host}"))
