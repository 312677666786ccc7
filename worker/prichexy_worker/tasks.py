"""The one Celery task: a message in, one attempt, and perhaps the same message later again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from celery import Celery
from celery.exceptions import Reject
from celery.worker.request import Request

from prichexy_worker.contract import (
    CONTRACT_VERSION,
    SOFTWARE_VERSION,
    TASK_NAME,
    ContractError,
    StudyMessage,
)
from prichexy_worker.logs import bound_to, where
from prichexy_worker.retry import RetryPolicy
from prichexy_worker.study import Outcome

__all__ = ["Process", "parse", "register"]

_LOG: Final = logging.getLogger(__name__)

#: Brings a study to an end or to another attempt, given the number of failed attempts so far.
Process = Callable[[StudyMessage, int], Outcome]


def parse(args: Sequence[object], kwargs: Mapping[str, object]) -> tuple[StudyMessage, int]:
    """Read a task's arguments: ``(message)`` from the plugin, ``(message, failures)`` from here.

    Raises ContractError when they are anything else.
    """
    if kwargs or len(args) not in (1, 2):
        raise ContractError("task: not the arguments message, failures")
    failures = args[1] if len(args) > 1 else 0
    if isinstance(failures, bool) or not isinstance(failures, int) or failures < 0:
        raise ContractError("task: failures is not valid")
    return StudyMessage.from_json(args[0]), failures


class StudyRequest(Request):  # type: ignore[misc, unused-ignore]
    """A message whose acknowledgement fails loudly when the broker has gone meanwhile.

    Celery logs such a failure and goes on as if the study were still being worked on: with one
    study at a time it never asks the broker for another, so never notices that it is gone, and
    waits for ever. Raised, the error makes it connect anew; the broker hands the study out again,
    and the ledger says that it has ended.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "connection_errors": ()})


def register(app: Celery, process: Process, policy: RetryPolicy) -> None:
    """Give ``app`` the task, which hands each study to ``process``."""

    @app.task(  # type: ignore[untyped-decorator, unused-ignore]
        name=TASK_NAME,
        bind=True,
        shared=False,
        max_retries=None,
        typing=False,
        Request=StudyRequest,
    )
    def anonymize_study(task: Any, *args: object, **kwargs: object) -> None:
        try:
            message, failures = parse(args, kwargs)
        except ContractError:
            # Even the names of unknown keys are content; and another try would read the same. The
            # plugin sends a study that nobody claims again, and gives it up after some sendings.
            _LOG.error(
                "refused a message that is not of this version's contract: its study waits. "
                "This worker is version %s with contract %d; the plugin has to be the same",
                SOFTWARE_VERSION,
                CONTRACT_VERSION,
            )
            return
        with bound_to(message.job_id):
            try:
                outcome = process(message, failures)
            except Exception as error:  # noqa: BLE001 - Celery would drop the message and log values
                _LOG.error("unexpected error: %s", where(error))
                outcome = Outcome(None, again=True, failures=failures)
            if not outcome.again:
                return
            pause = policy.delay(task.request.retries)
            _LOG.info("again in %.0f seconds (%d failed so far)", pause, outcome.failures)
            again = [message.to_json(), outcome.failures]
            try:
                task.retry(args=again, kwargs={}, countdown=pause)
            except Reject as reject:
                # The broker did not take the new message: Celery would drop the old one as well.
                raise Reject(reject.reason, requeue=True) from None
