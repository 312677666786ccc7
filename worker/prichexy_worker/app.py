"""The Celery app of a worker."""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

from celery import Celery, bootsteps
from celery.signals import setup_logging, worker_shutting_down

from prichexy_worker.patience import PatientConsumer
from prichexy_worker.settings import Broker, Settings
from prichexy_worker.tls import client_context

__all__ = [
    "Leaving",
    "broker_address",
    "broker_tls",
    "call_between_studies",
    "create_app",
    "work",
]

#: Seconds between two looks for studies of lost workers. Kombu's own default is every 100.
_RESTORE_INTERVAL: Final = 5


def broker_address(broker: Broker) -> str:
    """Give the broker's address with the password in it, for Celery's eyes only."""
    secret = broker.secret()
    if secret is None:
        return broker.url
    parts = urlsplit(broker.url)
    who = f"{quote(broker.user or '', safe='')}:{quote(secret, safe='')}"
    return urlunsplit(parts._replace(netloc=f"{who}@{parts.netloc}"))


def broker_tls(broker: Broker) -> dict[str, object] | None:
    """Give how Celery speaks TLS to the broker; None where it speaks none.

    The broker's certificate and name are always verified. Raises Misconfigured when a file cannot
    be used, or when others than its owner can read the key.
    """
    if not broker.encrypted:
        return None
    # Only to find a wrong file now: Celery makes a context of its own from the files.
    client_context(broker.ca_file, broker.certificate_file, broker.key_file)
    files = {
        "ssl_ca_certs": broker.ca_file,
        "ssl_certfile": broker.certificate_file,
        "ssl_keyfile": broker.key_file,
    }
    return {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_check_hostname": True,
        "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        **{name: str(file) for name, file in files.items() if file is not None},
    }


class Leaving:
    """When a worker that was told to stop lets go of its study, on ``time.monotonic``.

    Its ``by`` is in the far future until SIGTERM or SIGINT came, and ``seconds`` after that then.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._by = math.inf
        worker_shutting_down.connect(self._note, weak=False)

    def by(self) -> float:
        """Give the moment."""
        return self._by

    def _note(self, **_arguments: object) -> None:
        self._by = min(self._by, time.monotonic() + self._seconds)


def create_app(settings: Settings) -> Celery:
    """Give an app with no task and no connection yet; ``tasks.register`` adds the task.

    It is not made the process's current app, and it leaves logging alone. Raises Misconfigured.
    """
    setup_logging.connect(_leave_logging_alone)
    app = Celery("prichexy", broker=broker_address(settings.broker), set_as_current=False)
    app.conf.update(
        broker_use_ssl=broker_tls(settings.broker),
        task_default_queue=settings.broker.queue,
        # JSON or nothing: a pickled message would run code of its sender's choice.
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        # A study is acknowledged when it has come to an end, not when it is taken: kill -9 in
        # between gives it to another worker. One at a time, so that none waits behind a long one.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        broker_transport_options={
            "visibility_timeout": settings.broker.redelivery_seconds,
            "unacked_restore_throttle": 1,
            "unacked_restore_interval": _RESTORE_INTERVAL,
            "socket_timeout": 30,
            "socket_connect_timeout": 10,
            "socket_keepalive": True,
        },
        # A worker outlives its broker, at start as well.
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # And one whose memory or disk is full.
        broker_channel_error_retry=True,
        worker_consumer=PatientConsumer,
        # Nobody steers a worker through the broker, and it tells the broker nothing.
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    return app


def call_between_studies(app: Celery, function: Callable[[], None], seconds: float) -> None:
    """Have ``work`` call ``function`` again and again while it waits for a study.

    It is called in the thread that works on the studies, so never while one is under way, and
    about every ``seconds``. It must not raise.
    """

    class Caller(bootsteps.StartStopStep):  # type: ignore[misc, unused-ignore]
        """Sets the timer with each connection to the broker: a lost one takes the timers along."""

        requires = ("celery.worker.consumer.tasks:Tasks",)
        timer: Any = None

        def start(self, consumer: Any) -> None:
            self.timer = consumer.timer.call_repeatedly(seconds, function)

        def stop(self, consumer: Any) -> None:  # noqa: ARG002
            if self.timer is not None:
                self.timer.cancel()

    app.steps["consumer"].add(Caller)


def work(app: Celery, settings: Settings) -> int:
    """Take studies until SIGTERM or SIGINT, then end the one under way; gives the exit code.

    How long that one may take then is ``Leaving``'s to say.

    The pool is Celery's ``solo``: after torch has computed with threads, forked children of that
    process hang. A second SIGTERM or SIGINT stops at once; the study goes to another worker.
    """
    worker = app.Worker(
        pool="solo",
        concurrency=1,
        queues=list(settings.broker.taken_queues()),
        hostname=settings.worker_id,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel="WARNING",
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


def _leave_logging_alone(**_arguments: object) -> None:
    """Being connected to ``setup_logging`` is what keeps Celery from configuring logging."""
