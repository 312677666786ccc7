"""Following studies through a running gateway until each has come to an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from prichexy_gateway.client import OrthancClient, StudyRow
from prichexy_gateway.errors import Failed
from prichexy_gateway.waiting import wait_until
from prichexy_worker.contract import ENDED, State

__all__ = [
    "PATIENCE",
    "PATIENCE_WITH_A_WORKER",
    "exit_code",
    "follow",
    "ids_of",
    "latest_rows",
]

#: Seconds without any change after which waiting makes no sense any more.
PATIENCE: Final = 300.0
#: And while a worker has one of the studies: as long as it may hold one by default.
PATIENCE_WITH_A_WORKER: Final = 1800.0


def ids_of(client: OrthancClient, study_uids: Sequence[str]) -> list[str]:
    """Give Orthanc's ids of the studies with these UIDs."""
    found: dict[str, None] = {}
    for uid in study_uids:
        for study_id in client.find("Study", uid):
            found.setdefault(study_id)
    return list(found)


def latest_rows(client: OrthancClient, study_ids: Sequence[str]) -> dict[str, StudyRow]:
    """Give the ledger's rows of these studies; one that is not in the ledger is left out."""
    rows = {}
    for study_id in study_ids:
        for row in client.studies(study_id=study_id)[1]:
            rows[study_id] = row
    return rows


def follow(
    client: OrthancClient,
    study_ids: Sequence[str],
    stop: threading.Event,
    check: Callable[[], None],
    tell: Callable[[Mapping[str, StudyRow]], None] = lambda _: None,
    patience: float = PATIENCE,
    patience_with_a_worker: float = PATIENCE_WITH_A_WORKER,
) -> dict[str, StudyRow]:
    """Give the rows of the studies once all have ended with all that has arrived for them.

    ``check`` is called again and again and raises to end the waiting; ``tell`` is given each new
    picture of the ledger. Raises Failed when nothing changed for ``patience`` seconds, or for
    ``patience_with_a_worker`` while one of the studies is being processed; Interrupted.
    """
    rows: dict[str, StudyRow] = {}
    ended: set[str] = set()
    changed = time.monotonic()

    def all_ended() -> bool:
        nonlocal rows, changed
        check()
        open_ids = [study_id for study_id in study_ids if study_id not in ended]
        found = rows | latest_rows(client, open_ids)
        ended.update(i for i in open_ids if i in found and _has_ended(client, found[i]))
        if found != rows:
            rows, changed = found, time.monotonic()
            tell(rows)
        if ended.issuperset(study_ids):
            return True
        working = any(rows[i].state is State.PROCESSING for i in open_ids if i in rows)
        longest = patience_with_a_worker if working else patience
        if time.monotonic() - changed > longest:
            raise Failed(
                f"{len(open_ids)} studies did not move for {longest:.0f} s. "
                "`prichexy doctor` tells what is wrong; they are not lost."
            )
        return False

    wait_until(all_ended, float("inf"), stop, every=0.3)
    return rows


def _has_ended(client: OrthancClient, row: StudyRow) -> bool:
    """Say whether the row is the last word on all that Orthanc holds of the study.

    It is not while instances that came later wait for the study to be complete again.
    """
    if row.state not in ENDED:
        return False
    instances = client.settled_instances(row.study_id)
    if instances is None:
        return False
    return row.state is not State.EXPORTED or instances in (0, row.instances)


def exit_code(rows: Mapping[str, StudyRow], refused: int = 0) -> int:
    """Give 0 when all was exported, 1 when a study failed, 3 when some was not let through."""
    states = {row.state for row in rows.values()}
    if State.FAILED in states:
        return 1
    return 3 if refused or states - {State.EXPORTED} else 0
