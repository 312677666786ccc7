"""The one Celery task: a message in, one attempt, and perhaps the same message later again."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from celery import Celery
from celery.exceptions import Reject
from celery.worker.request import Request

from prichexy_worker.contract import (
    CONTRACT_VERSION,
    SOFTWARE_VERSION,
    TASK_NAME,
    ContractError,
    LaterVersion,
    Reason,
    StudyMessage,
)
from prichexy_worker.logs import bound_to, where
from prichexy_worker.retry import RetryPolicy
from prichexy_worker.study import Outcome

__all__ = ["Process", "parse", "register"]

_LOG: Final = logging.getLogger(__name__)

#: Seconds for which this worker leaves a message alone that it cannot read.
_GIVEN_BACK_FOR: Final = 30.0

#: Brings a study to an end or to another attempt.
Process = Callable[[StudyMessage], Outcome]


def parse(args: Sequence[object], kwargs: Mapping[str, object]) -> StudyMessage:
    """Read a task's one argument. Raises ContractError when there is anything else."""
    if kwargs or len(args) != 1:
        raise ContractError("task: not the one argument message")
    return StudyMessage.from_json(args[0])


class StudyRequest(Request):  # type: ignore[misc, unused-ignore]
    """A message that waits no longer than any pause, and whose acknowledgement fails loudly.

    The end of a pause is a time of day. Where the clock was ahead when it was written, it lies as
    far in the future once the clock is right, and the broker would hold the study until then.

    The acknowledgement fails loudly when the broker has gone meanwhile.
    Celery logs such a failure and goes on as if the study were still being worked on: with one
    study at a time it never asks the broker for another, so never notices that it is gone, and
    waits for ever. Raised, the error makes it connect anew; the broker hands the study out again,
    and the ledger says that it has ended.
    """

    #: In seconds; ``register`` has it from the policy.
    longest_pause: float
    _eta: datetime | None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "connection_errors": ()})
        latest = datetime.now(UTC) + timedelta(seconds=self.longest_pause)
        if self._eta is not None and self._eta > latest:
            self._eta = latest


def register(app: Celery, process: Process, policy: RetryPolicy) -> None:
    """Give ``app`` the task, which hands each study to ``process``."""

    class PolicyRequest(StudyRequest):
        longest_pause = policy.ceiling

    @app.task(  # type: ignore[untyped-decorator, unused-ignore]
        name=TASK_NAME,
        bind=True,
        shared=False,
        max_retries=None,
        typing=False,
        Request=PolicyRequest,
    )
    def anonymize_study(task: Any, *args: object, **kwargs: object) -> None:
        try:
            message = parse(args, kwargs)
        except LaterVersion:
            # Whole, unopened and without a word to the ledger, which so counts no attempt. The
            # pause lets newer workers come before this one again.
            _LOG.warning(
                "gave back a message of a later version of the contract than %d: it is for newer "
                "workers",
                CONTRACT_VERSION,
            )
            _send_again(task, args, kwargs, _GIVEN_BACK_FOR)
            return
        except ContractError:
            # Even the names of unknown keys are content; and another try would read the same. The
            # plugin sends a study that nobody claims again, and gives it up after some sendings.
            _LOG.error(
                "refused a message that is not of this version's contract: its study waits. "
                "This worker is version %s with contract %d",
                SOFTWARE_VERSION,
                CONTRACT_VERSION,
            )
            return
        with bound_to(message.job_id):
            try:
                outcome = process(message)
            except Exception as error:  # noqa: BLE001 - Celery would drop the message and log values
                _LOG.error("unexpected error: %s", where(error))
                outcome = Outcome(None, again=True)
            if not outcome.again:
                return
            pause = policy.delay(task.request.retries, random.random())  # noqa: S311 - no secret
            if outcome.reason is Reason.WORKER_STOPPED:
                pause = 0.0
            _LOG.info("again in %.0f seconds", pause)
            _send_again(task, [message.to_json()], {}, pause)


def _send_again(
    task: Any, args: Sequence[object], kwargs: Mapping[str, object], pause: float
) -> None:
    """End the task and have its message sent to its queue again, for any worker of that queue."""
    try:
        task.retry(args=args, kwargs=kwargs, countdown=pause)
    except Reject as reject:
        # The broker did not take the new message: Celery would drop the old one as well.
        raise Reject(reject.reason, requeue=True) from None
