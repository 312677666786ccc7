"""The Celery app of a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

from celery import Celery, bootsteps
from celery.signals import setup_logging

from prichexy_worker.settings import Broker, Settings

__all__ = ["broker_address", "call_between_studies", "create_app", "work"]

#: Seconds between two looks for studies of lost workers. Kombu's own default is every 100.
_RESTORE_INTERVAL: Final = 5


def broker_address(broker: Broker) -> str:
    """Give the broker's address with the password in it, for Celery's eyes only."""
    secret = broker.secret()
    if secret is None:
        return broker.url
    parts = urlsplit(broker.url)
    return urlunsplit(parts._replace(netloc=f":{quote(secret, safe='')}@{parts.netloc}"))


def create_app(settings: Settings) -> Celery:
    """Give an app with no task and no connection yet; ``tasks.register`` adds the task.

    It is not made the process's current app, and it leaves logging alone.
    """
    setup_logging.connect(_leave_logging_alone)
    app = Celery("prichexy", broker=broker_address(settings.broker), set_as_current=False)
    app.conf.update(
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

    The pool is Celery's ``solo``: after torch has computed with threads, forked children of that
    process hang. A second SIGTERM or SIGINT stops at once; the study goes to another worker.
    """
    worker = app.Worker(
        pool="solo",
        concurrency=1,
        queues=[settings.broker.queue],
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
