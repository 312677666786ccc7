"""Every text that the ledger may be given fits into its column.

SQLite ignores the lengths of columns and PostgreSQL does not: what is one character too long is
an error there, and nowhere else.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from hashlib import sha256

import pytest
from sqlalchemy import String, Text

from prichexy_plugin import told_once
from prichexy_plugin.chain import Deed
from prichexy_plugin.ownership import CURSOR, RESTORED
from prichexy_plugin.pauses import Stage, key_of
from prichexy_plugin.people import LONGEST_ACTOR, kept_name, person
from prichexy_plugin.retention import Originals
from prichexy_plugin.schema import CHECKPOINT, HEAD, RULE_LENGTH, Base
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_worker.contract import QUEUE_NAME, TARGET_NAME, Reason, State
from prichexy_worker.contract.reading import DIGEST, EDITION_OR_NONE, KEY_ID, WORKER_ID


def longest(texts: Iterable[str]) -> str:
    return max(texts, key=len)


def most_of(pattern: re.Pattern[str]) -> str:
    """Give the longest run of a letter that the pattern takes."""
    return longest("a" * length for length in range(1000) if pattern.fullmatch("a" * length))


JOB, STUDY, DIGITS = uuid.uuid4().hex, orthanc_id("a"), sha256().hexdigest()
STATE, REASON, STAGE = longest(State), longest(Reason), longest(Stage)
WORKER, TARGET, QUEUE = map(most_of, (WORKER_ID, TARGET_NAME, QUEUE_NAME))
KEY, DIGEST_64, EDITION = map(most_of, (KEY_ID, DIGEST, EDITION_OR_NONE))
SOMEBODY = "x" * 1000
TOLD = sha256().hexdigest()[: told_once._TELLS_CHANGES_APART]
#: By column: the longest text that the program may write there.
LONGEST = {
    "studies.study_id": STUDY,
    "studies.job_id": JOB,
    "studies.state": STATE,
    "studies.reason": REASON,
    "studies.trouble": REASON,
    "studies.content": DIGITS,
    "studies.worker_id": WORKER,
    "studies.key_id": KEY,
    "studies.profile": DIGEST_64,
    "studies.model": DIGEST_64,
    "studies.edition": EDITION,
    "studies.originals": longest(Originals),
    "studies.queue": QUEUE,
    "studies.rule": "r" * RULE_LENGTH,
    "events.job_id": JOB,
    "events.deed": longest(Deed),
    "events.from_state": STATE,
    "events.to_state": STATE,
    "events.actor": longest([person(SOMEBODY), WORKER]),
    "events.reason": REASON,
    "events.key_id": KEY,
    "events.digest": DIGITS,
    "audit_chain.name": longest([HEAD, CHECKPOINT]),
    "audit_chain.digest": DIGITS,
    "disposed_originals.study_id": STUDY,
    "disposed_originals.instance_id": STUDY,
    "disposed_originals.digest": DIGITS,
    "images_in_doubt.study_id": STUDY,
    "images_in_doubt.digest": DIGEST_64,
    "workers.worker_id": WORKER,
    "backfills.started_by": kept_name(SOMEBODY),
    "backfills.last_id": STUDY,
    "backfills.stopped_by": kept_name(SOMEBODY),
    "circuits.reason": REASON,
    "circuits.probe": JOB,
    "pauses.name": key_of(Stage(STAGE), TARGET),
    "pauses.stage": STAGE,
    "pauses.target": TARGET,
    "pauses.actor": person(SOMEBODY),
    "pauses.reason": REASON,
    "keys_of_places.key_id": KEY,
    "facts.name": longest(
        [CURSOR, RESTORED, f"{told_once._MODEL_CHANGE}{TOLD}", f"{told_once._DEED}{TOLD}"]
    ),
}
COLUMNS = {
    f"{table.name}.{column.name}": column.type.length
    for table in Base.metadata.tables.values()
    for column in table.columns
    if isinstance(column.type, String) and not isinstance(column.type, Text)
}


def test_of_each_column_it_is_known_what_comes_there() -> None:
    assert COLUMNS.keys() == LONGEST.keys()


@pytest.mark.parametrize("name", sorted(LONGEST))
def test_the_longest_text_fits_into_its_column(name: str) -> None:
    length = COLUMNS[name]
    assert length is not None
    assert 0 < len(LONGEST[name]) <= length


def test_the_actor_of_a_line_is_as_long_as_its_column() -> None:
    assert COLUMNS["events.actor"] == LONGEST_ACTOR
