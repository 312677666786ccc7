"""The faults that a gateway has to bear: what happens, and what puts an end to it."""

from __future__ import annotations

import math
import random
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from pydantic import SecretStr

from prichexy_plugin.broker import RedisBroker
from prichexy_testing.faults.site import Site
from prichexy_worker.contract import DEFAULT_QUEUE, StudyMessage

__all__ = ["CLOCK_KINDS", "KINDS", "Fault", "send_message_again"]

_ANY = ".*"
_STORE = ("POST", r"^/instances$")


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault.

    ``inject`` may choose by chance what it hits; it does nothing, and gives False, where there is
    nothing to hit. ``heal`` ends it, whatever it had hit. ``seconds``: for how long it has to last
    at least, so that the gateway notices. ``said``: what the plugin logs when it does.
    """

    name: str
    inject: Callable[[Site, random.Random], bool]
    heal: Callable[[Site], None]
    seconds: float = 3.0
    said: str = ""


def _living(site: Site) -> list[str]:
    return [name for name in site.workers if site.runs(name) and name not in site.stopped]


def _on_a_worker(act: Callable[[Site, str], None]) -> Callable[[Site, random.Random], bool]:
    def inject(site: Site, chance: random.Random) -> bool:
        living = _living(site)
        if living:
            act(site, chance.choice(living))
        return bool(living)

    return inject


def _kill(name: str) -> Callable[[Site, random.Random], bool]:
    def inject(site: Site, _chance: random.Random) -> bool:
        if not site.runs(name):
            return False
        site.kill(name)
        return True

    return inject


def _start(name: str) -> Callable[[Site], None]:
    return lambda site: site.start(name)


def _kill_and_empty_redis(site: Site, _chance: random.Random) -> bool:
    if not site.runs("redis"):
        return False
    site.kill("redis")
    for path in site.home.folder("redis").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix in (".aof", ".rdb"):
            path.unlink()
    return True


def _workers_start(site: Site) -> None:
    site.start_dead_workers()


def _workers_go_on(site: Site) -> None:
    for name in list(site.stopped):
        site.release(name)


def _rule(
    front: str, method: str, path: str, **what: object
) -> Callable[[Site, random.Random], bool]:
    def inject(site: Site, _chance: random.Random) -> bool:
        getattr(site, front).rule(method, path, **what)
        return True

    return inject


def _clear(front: str) -> Callable[[Site], None]:
    return lambda site: getattr(site, front).clear()


def _lose_answers(site: Site, _chance: random.Random) -> bool:
    """The ledger hears some reports, and its answers to them are lost."""
    for skip in (1, 2, 3):
        rule = site.ingest_front.rule("POST", r"/reports$", after=True, skip=skip)
        rule.lose(times=1)
    return True


def _die_within_a_study(site: Site, _chance: random.Random) -> bool:
    """The peer takes an image and dies before it can say so."""
    rule = site.export_front.rule(*_STORE, after=True)
    if not site.runs("export") or not rule.reached.wait(10):
        rule.go()
        return False
    site.kill("export")
    rule.lose()
    return True


def _start_export(site: Site) -> None:
    site.export_front.clear()
    site.start("export")


def _cut(way: str) -> Callable[[Site, random.Random], bool]:
    def inject(site: Site, _chance: random.Random) -> bool:
        getattr(site, way).cut()
        return True

    return inject


def _mend(way: str) -> Callable[[Site], None]:
    return lambda site: getattr(site, way).mend()


def _fill(disk: str) -> Callable[[Site, random.Random], bool]:
    def inject(site: Site, _chance: random.Random) -> bool:
        if disk not in site.disks:
            return False
        if disk == "ledger":
            _give_back_the_log(site)
        site.disks[disk].fill()
        return True

    return inject


def _give_back_the_log(site: Site) -> None:
    """Have the next write need room: SQLite keeps what its log has taken, and uses it again."""
    with closing(sqlite3.connect(site.ledger, timeout=10)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _empty(disk: str) -> Callable[[Site], None]:
    def heal(site: Site) -> None:
        if disk in site.disks:
            site.disks[disk].clear()

    return heal


def _set_clock(seconds: int) -> Callable[[Site, random.Random], bool]:
    def inject(site: Site, _chance: random.Random) -> bool:
        if site.clock is None:
            return False
        site.clock.set(seconds)
        return True

    return inject


def _right_clock(site: Site) -> None:
    if site.clock is not None:
        site.clock.set(0)


def send_message_again(site: Site, study_id: str) -> None:
    """Put the message on a study into the broker once more, as a Redis of before may do."""
    row = site.rows()[study_id]
    password = SecretStr(site.home.password("broker"))
    broker = RedisBroker(site.plan.addresses.broker_url, password, DEFAULT_QUEUE)
    broker.send(StudyMessage(job_id=row.job_id, study_id=study_id, revision=row.revision))
    broker.close()


def _open_numbers(site: Site) -> list[int]:
    open_studies = site.open_studies()
    return [
        number
        for number, sent in site.sent.items()
        if sent.study_id in open_studies and not sent.deleted and number in site.plain
    ]


def _double_messages(site: Site, _chance: random.Random) -> bool:
    if not site.runs("redis"):
        return False
    known = site.rows()
    numbers = [one for one in _open_numbers(site) if site.sent[one].study_id in known]
    for number in numbers[:4]:
        send_message_again(site, site.sent[number].study_id)
    return bool(numbers)


def _grow(site: Site, chance: random.Random) -> bool:
    numbers = _open_numbers(site)
    if not numbers or not site.runs("ingest"):
        return False
    site.send(site.plain[chance.choice(numbers)].with_another_image())
    return True


def _delete(site: Site, chance: random.Random) -> bool:
    # Of one that goes before the plugin has heard of it nobody learns: it is as if never sent.
    known = site.rows()
    numbers = [number for number in _open_numbers(site) if site.sent[number].study_id in known]
    if not numbers or not site.runs("ingest"):
        return False
    site.delete(site.plain[chance.choice(numbers)])
    return True


def _nothing(_site: Site) -> None:
    """It is over as soon as it has happened."""


KINDS: Sequence[Fault] = (
    Fault("worker killed", _on_a_worker(Site.kill), _workers_start, 0.0),
    Fault("worker stands still", _on_a_worker(Site.hold), _workers_go_on, 8.0),
    Fault("ingest Orthanc killed", _kill("ingest"), _start("ingest"), 0.5),
    Fault("Redis killed", _kill("redis"), _start("redis"), 0.5),
    Fault("Redis killed and emptied", _kill_and_empty_redis, _start("redis"), 0.5),
    Fault("peer killed", _kill("export"), _start("export")),
    Fault("peer dies within a study", _die_within_a_study, _start_export, 0.5),
    Fault(
        "peer slower than its time limit",
        _rule("export_front", *_STORE, times=math.inf),
        _clear("export_front"),
        5.0,
    ),
    Fault(
        "peer says it is full",
        _rule("export_front", *_STORE, times=math.inf, status=507),
        _clear("export_front"),
    ),
    Fault(
        "peer refuses single images",
        _rule("export_front", *_STORE, times=2, skip=1, status=400),
        _clear("export_front"),
    ),
    Fault("answers to reports lost", _lose_answers, _clear("ingest_front")),
    Fault("workers cut from Redis", _cut("worker_broker"), _mend("worker_broker")),
    Fault("plugin cut from Redis", _cut("plugin_broker"), _mend("plugin_broker")),
    Fault(
        "workers cut from the ingest Orthanc",
        _rule("ingest_front", "POST", _ANY, times=math.inf),
        _clear("ingest_front"),
    ),
    Fault(
        "disk full under the ledger",
        _fill("ledger"),
        _empty("ledger"),
        said="the ledger does not work",
    ),
    Fault("disk full at the workers", _fill("scratch"), _empty("scratch")),
    Fault("disk full at the peer", _fill("export"), _empty("export")),
    Fault("messages doubled", _double_messages, _nothing, 0.0),
    Fault("another image comes", _grow, _nothing, 0.0),
    Fault("study deleted", _delete, _nothing, 0.0),
)

#: These need a site that has a clock of its own.
CLOCK_KINDS: Sequence[Fault] = (
    Fault("clock a day ahead, then right", _set_clock(86_400), _right_clock),
    Fault("clock an hour behind, then right", _set_clock(-3_600), _right_clock),
)
