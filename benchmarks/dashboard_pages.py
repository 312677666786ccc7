"""What the dashboard's pages cost with a long ledger, and what a plugin at rest asks of it.

    PYTHONPATH=tests python benchmarks/dashboard_pages.py [--studies 100000] [--times 5]

Fills a ledger in a temporary folder with made-up studies of the last 14 days, six lines of the
audit trail each, and prints what each page costs as the plugin makes it, searched and rendered,
without the transport: the median of the clock and of the processor's time, which a busy machine
alters less. The pages far behind are reached by their marks, as a reader would. The questions at
rest are those that the plugin asks each second or each ten.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, insert, update

from prichexy_plugin.chain import Deed
from prichexy_plugin.dashboard.http import Request
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.database import open_database
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.limits import Limits
from prichexy_plugin.queries import Mark
from prichexy_plugin.retention import Rules
from prichexy_plugin.schema import HEAD, ChainRow, EventRow, StudyRow
from prichexy_testing.dashboard_reader import FakeGateway, login
from prichexy_worker.contract import ENDED, Reason, State

_ENDS = (
    *[(State.EXPORTED, None)] * 17,
    (State.QUARANTINED, Reason.BURNED_IN_TEXT),
    (State.FAILED, Reason.TARGET_REFUSED),
    (State.REJECTED, Reason.NO_RULE_MATCHES),
)
#: How many studies in a hundred go to each target.
_TARGETS = {"research": 90, "archive": 10, "seldom": 0}
_BATCH = 5000
_LOGIN = login("admin")
#: As many searches as there are.
_UNLIMITED = Limits(None, None, None, None)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=5)
    wanted = parser.parse_args()
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as folder:
        engine = open_database(f"sqlite:///{Path(folder)}/ledger.sqlite")
        rows = list(_studies(wanted.studies, now))
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            lines = [line for row in batch for line in _trail(row)]
            numbered = [{"number": 6 * start + at, **line} for at, line in enumerate(lines, 1)]
            with engine.begin() as connection:
                connection.execute(insert(StudyRow), batch)
                # The database takes no line beyond the head.
                head = update(ChainRow).where(ChainRow.name == HEAD)
                connection.execute(head.values(number=numbered[-1]["number"]))
                connection.execute(insert(EventRow), numbered)
        site = _site(engine, now)
        print(f"{wanted.studies} studies; milliseconds of clock and processor")  # noqa: T201
        # The first call of all also reads the templates and is not counted.
        began = [_seconds(_site(engine, now), "", {}) for _ in range(1 + wanted.times)][1:]
        _tell("overview, for the first time after a start", began)
        for name, path, query in _pages(sorted(rows, key=lambda row: row["updated"])):
            took = [_seconds(site, path, query) for _ in range(wanted.times)]
            _tell(name, took)
        ledger = Ledger(engine, lambda: now)
        for name, question in _questions(ledger):
            _tell(name, [_timed(question) for _ in range(wanted.times)])
        engine.dispose()


def _site(engine: Engine, now: datetime) -> Site:
    gateway = FakeGateway(Ledger(engine, lambda: now))
    gateway.targets = frozenset(_TARGETS)
    return Site(gateway, problems=(), worker_user=None, clock=lambda: now, limits=_UNLIMITED)


def _tell(name: str, took: list[tuple[float, float]]) -> None:
    clock, processor = (1000 * statistics.median(column) for column in zip(*took, strict=True))
    print(f"{name:<46}{clock:8.0f}{processor:8.0f}")  # noqa: T201


def _pages(rows: list[dict[str, Any]]) -> Iterator[tuple[str, str, dict[str, str]]]:
    some = rows[len(rows) // 2]
    middle, first = (str(Mark(row["updated"], row["study_id"])) for row in (some, rows[40]))
    day = some["updated"].strftime("%Y-%m-%d")
    last = rows[-1]["updated"].strftime("%Y-%m-%d")
    by_reason = {"reason": "target_refused"}
    yield "overview", "", {}
    yield "studies, newest", "/studies", {}
    yield "studies, in the middle", "/studies", {"older": middle}
    yield "studies, the oldest", "/studies", {"older": first}
    yield "exported, in the middle", "/studies", {"state": "exported", "older": middle}
    yield "by reason", "/studies", by_reason
    yield "by state and a reason that it never has", "/studies", {"state": "exported", **by_reason}
    yield "by a target of many", "/studies", {"target": "research"}
    yield "by a target of none", "/studies", {"target": "seldom"}
    a_day = {"since": day, "until": day}
    fortnight = {"since": rows[0]["updated"].strftime("%Y-%m-%d"), "until": last}
    yield "by a target of none and a state", "/studies", {"target": "seldom", "state": "exported"}
    yield "by a target of none and a fortnight", "/studies", {"target": "seldom", **fortnight}
    yield "by a target of many and a reason", "/studies", {"target": "research", **by_reason}
    yield "of one day", "/studies", a_day
    yield "by the beginning of an id", "/studies", {"name": some["job_id"][:8]}
    yield "by one letter of an id", "/studies", {"name": "a"}
    yield "by one letter of an id and a state", "/studies", {"name": "a", "state": "failed"}
    yield "by an id that is not there", "/studies", {"name": "0" * 32}
    uid = next(iter(some["study_uids"]))
    yield "by an export's UID", "/studies", {"name": uid}
    yield "by an export's UID and what it is not", "/studies", {"name": uid, **by_reason}
    gone = {"name": "0" * 10, "state": "exported"}
    yield "by an id that is not there and a state", "/studies", gone
    nobody = {"actor": "user nobody"}
    yield "audit trail, newest", "/audit", {}
    yield "audit trail, by a name that is not there", "/audit", nobody
    yield "audit trail, by such a name and a fortnight", "/audit", {**nobody, **fortnight}
    yield "audit trail, by such a name and a state", "/audit", {**nobody, "state": "exported"}
    yield "audit trail, by the plugin and a day", "/audit", {"actor": "plugin", **a_day}
    yield "audit trail, by a state", "/audit", {"state": "failed"}
    yield "audit trail, by a reason", "/audit", by_reason
    seldom = {"reason": "folds"}
    yield "audit trail, by a reason that is not there", "/audit", seldom
    often = {**by_reason, "state": "exported", "actor": "plugin"}
    yield "audit trail, by a reason and what never has it", "/audit", often
    yield "audit trail, of the first day", "/audit", {**fortnight, "until": fortnight["since"]}
    yield "audit trail, as a file", "/audit.csv", {}
    yield "one study", f"/studies/{some['job_id']}", {}


def _questions(ledger: Ledger) -> Iterator[tuple[str, Callable[[], object]]]:
    year = timedelta(days=365)
    rules = Rules(originals=dict.fromkeys(ENDED, year), pictures=year, ledger=year)
    yield "at rest: what is to be looked at", ledger.due
    yield "at rest: what is to be handed out", ledger.outbox
    yield "at rest: what a rule would delete", lambda: ledger.due_originals(rules, 10)
    yield "at rest: pictures that a rule would delete", lambda: ledger.due_pictures(rules, 10)
    yield "at rest: what a rule would forget", lambda: ledger.forgettable(rules, 10)
    yield "asked by Prometheus: studies by state", ledger.counts


def _seconds(site: Site, path: str, query: dict[str, str]) -> tuple[float, float]:
    def asked() -> None:
        answer = site.answer(Request("GET", path, query=query, headers=_LOGIN))
        if answer.status != 200:
            raise RuntimeError(f"{path or '/'}: {answer.status}")

    return _timed(asked)


def _timed(question: Callable[[], object]) -> tuple[float, float]:
    clock, processor = time.perf_counter(), time.process_time()
    question()
    return time.perf_counter() - clock, time.process_time() - processor


def _studies(count: int, now: datetime) -> Iterator[dict[str, Any]]:
    chance = random.Random(1)  # noqa: S311 - figures, no secrets
    for _ in range(count):
        state, reason = chance.choice(_ENDS)
        updated = now - timedelta(seconds=chance.uniform(0, 14 * 86400))
        digest = f"{chance.getrandbits(160):040x}"
        yield {
            "study_id": "-".join(digest[place : place + 8] for place in range(0, 40, 8)),
            "job_id": uuid.UUID(int=chance.getrandbits(128)).hex,
            "state": state.value,
            "reason": None if reason is None else reason.value,
            "trouble": None,
            "revision": 1,
            "attempts": 1,
            "instances": 2,
            "content": "c",
            "targets": chance.choices(list(_TARGETS), list(_TARGETS.values())),
            "first_seen": updated - timedelta(seconds=chance.uniform(60, 600)),
            "updated": updated,
            "look_at": None,
            "failed_looks": 0,
            "sendings": 0,
            "worker_id": "worker-1",
            "durations": {"fetch": 0.3, "deform": 2.1, "export": 0.4},
            "measures": {"mean_displacement_px": 4.2},
            "study_uids": {f"2.25.{chance.getrandbits(122)}": "0123456789abcdef"},
        }


def _trail(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give six lines from arrival to the end, not chained: one attempt was given back."""
    states = ("watched", "pending", "queued", "processing", "queued", row["state"])
    step = (row["updated"] - row["first_seen"]) / (len(states) - 1)
    for number, state in enumerate(states):
        yield {
            "job_id": row["job_id"],
            "at": row["first_seen"] + number * step,
            "from_state": states[number - 1] if number else None,
            "to_state": state,
            "deed": Deed.STEP.value,
            "actor": "plugin",
            "details": {},
            "key_id": "",
            "digest": "0" * 64,
            "reason": row["reason"] if number == len(states) - 1 else None,
        }


if __name__ == "__main__":
    main()
