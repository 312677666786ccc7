"""The broker, as a port, and Celery on Redis behind it."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
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

__all__ = ["Broker", "BrokerTls", "BrokerUnavailable", "RedisBroker"]

_SOCKET_SECONDS: Final = 2.0
#: The relay keeps few there; others may be of another program that uses the same database. So many
#: are read at a time, and in all: some seconds on a Redis that is near.
_PAGE: Final = 500
_MOST_READ: Final = 100_000
#: Where kombu keeps what a worker has taken until it is acknowledged (``Channel.unacked_key``).
_UNACKNOWLEDGED: Final = "unacked"


@dataclass(frozen=True, slots=True)
class BrokerTls:
    """The files for TLS: whom to trust, by default the system's authorities, and who we are."""

    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None


class BrokerUnavailable(Exception):
    """The broker did not take a message or did not answer; the text names no secret."""


class Broker(Protocol):
    """What the relay needs. Every method raises BrokerUnavailable within a few seconds."""

    def send(self, message: StudyMessage, queue: str = "") -> None:
        """Hand a message over; after a return the broker has it. "" is the gateway's own queue."""

    def waiting(self, queue: str = "") -> int:
        """Say how many messages of a queue wait for a worker; also to see whether it answers."""
        ...

    def unacknowledged(self) -> int:
        """Say how many messages workers have taken and not finished, those in a pause included."""
        ...

    def held(self, jobs: Collection[str], queues: Collection[str] = ("",)) -> frozenset[str] | None:
        """Name those of ``jobs`` whose messages it has, waiting or taken; None: nobody can tell."""
        ...

    def close(self) -> None:
        """Let go of the connections."""


class RedisBroker:
    """Sends by the task's name: nothing of the worker is imported here.

    Celery's defaults would wait for a hung Redis for ever, so every socket has a time limit and
    nothing is retried here: the relay does that.
    """

    def __init__(
        self,
        url: str,
        password: SecretStr | None,
        queue: str,
        *,
        user: str | None = None,
        tls: BrokerTls | None = None,
    ) -> None:
        """Speak to the Redis at ``url``; ``tls`` is for one of ``rediss://``, always verified."""
        parts = urlsplit(url)
        encrypted = _tls_options(tls or BrokerTls()) if parts.scheme == "rediss" else None
        self._where = f"{parts.hostname}:{parts.port or 6379}"
        self._queue = queue
        address = url if password is None else _with_password(parts, user, password)
        self._redis = redis.Redis.from_url(
            address,
            socket_timeout=_SOCKET_SECONDS,
            socket_connect_timeout=_SOCKET_SECONDS,
            retry=Retry(NoBackoff(), 0),
            **(encrypted or {}),
        )
        self._address = address
        self._celery = Celery("prichexy_plugin", set_as_current=False)
        self._celery.conf.update(
            broker_use_ssl=encrypted,
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

    def send(self, message: StudyMessage, queue: str = "") -> None:
        """Hand a message over; after a return the broker has it. "" is the gateway's own queue."""
        try:
            if self._connection is None:
                # By its address: a CELERY_BROKER_URL in the environment would win otherwise.
                self._connection = self._celery.connection_for_write(self._address)
            producer = self._celery.amqp.Producer(self._connection, auto_declare=False)
            self._celery.send_task(
                TASK_NAME,
                args=(message.to_json(),),
                queue=queue or self._queue,
                producer=producer,
                retry=False,
            )
        except (KombuError, redis.RedisError, OSError) as error:
            self.close()
            raise self._unavailable(error) from error

    def waiting(self, queue: str = "") -> int:
        """Say how many messages of a queue wait for a worker; also to see whether it answers."""
        try:
            return int(self._redis.llen(queue or self._queue))
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

    def held(self, jobs: Collection[str], queues: Collection[str] = ("",)) -> frozenset[str] | None:
        """Name those of ``jobs`` whose messages it has, waiting or taken; None: nobody can tell.

        ``queues`` are where they may wait. A message that cannot be read is passed over. None when
        there are more than ``_MOST_READ`` of them, and some of ``jobs`` are not among the first. A
        message on its way from a worker back to its queue may be missed.
        """
        wanted, found = frozenset(jobs), set[str]()
        left = _MOST_READ
        try:
            # What a worker takes meanwhile goes from the queues to what is read after them.
            for page in chain(*map(self._waiting_in, queues), self._taken()):
                found.update({job for raw in page if (job := _job_of(raw)) is not None} & wanted)
                left -= len(page)
                if found == wanted:
                    break
                if left < 0:
                    return None
        except (redis.RedisError, OSError) as error:
            raise self._unavailable(error) from error
        return frozenset(found)

    def _waiting_in(self, queue: str) -> Iterator[Collection[bytes | str]]:
        """Give a queue's messages, page by page; one may come twice."""
        place = 0
        # Celery puts new ones at the beginning, and workers take from the end: none is passed over.
        while page := self._redis.lrange(queue or self._queue, place, place + _PAGE - 1):
            yield page
            place += len(page)

    def _taken(self) -> Iterator[Collection[bytes | str]]:
        """Give the messages that workers have taken, page by page; one may come twice."""
        messages = self._redis.hscan_iter(_UNACKNOWLEDGED, count=_PAGE)
        while page := [message for _tag, message in islice(messages, _PAGE)]:
            yield page

    def close(self) -> None:
        """Let go of the connections."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()  # type: ignore[no-untyped-call]
        self._redis.close()

    def _unavailable(self, error: Exception) -> BrokerUnavailable:
        return BrokerUnavailable(f"Redis at {self._where}: {type(error).__name__}")


def _job_of(raw: bytes | str) -> str | None:
    """Read the job's id from a message as kombu keeps it; None when it is none of ours."""
    try:
        kept = json.loads(raw)
        # One that is taken has beside it where it was taken from.
        envelope = kept[0] if isinstance(kept, list) else kept
        arguments = json.loads(base64.b64decode(envelope["body"]))[0]
        return StudyMessage.from_json(arguments[0]).job_id
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _with_password(parts: SplitResult, user: str | None, password: SecretStr) -> str:
    """Give the address as redis-py and kombu take it; it stays inside this object."""
    secret = quote(password.get_secret_value(), safe="")
    name = quote(user, safe="") if user is not None else parts.username or ""
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{name}:{secret}@{host}"))


def _tls_options(tls: BrokerTls) -> dict[str, Any]:
    """Give the options that redis-py and kombu have in common."""
    files = {
        "ssl_ca_certs": tls.ca_file,
        "ssl_certfile": tls.certificate_file,
        "ssl_keyfile": tls.key_file,
    }
    return {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_check_hostname": True,
        "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        **{name: str(file) for name, file in files.items() if file is not None},
    }
