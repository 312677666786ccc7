"""What one study costs a worker, the ledger and the broker; writes the tables of docs/capacity.md.

    PYTHONPATH=plugin:worker:model:tests python benchmarks/capacity.py [--write docs/capacity.md]

Seconds are of the processor (user and system, child processes included), because the machine may
have other work. The image is the radiograph that PyPI's pydicom-data has. PostgreSQL and Redis are
started in a temporary folder; what is not installed is left out.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeVar

import pydicom.data
import pytest
from pydantic import SecretStr
from sqlalchemy import event

from prichexy_plugin.broker import RedisBroker
from prichexy_plugin.database import open_database
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_testing.fakes_worker import FakeLedger, FakeSource, instance_id, study_message
from prichexy_testing.plugin_fakes import report_of
from prichexy_testing.sections import replace_section, table
from prichexy_testing.servers import running_postgres, running_redis
from prichexy_worker import pipeline
from prichexy_worker.contract import State, StudyMessage
from prichexy_worker.destinations import Destinations
from prichexy_worker.engine import Engine
from prichexy_worker.export import create_destinations
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.study import process_study
from prichexy_worker.target_settings import Folder
from prichexy_worker.text import TextFinder

REPO: Final = Path(__file__).resolve().parents[1]
IMAGE: Final = "RG1_UNCR.dcm"
#: What a worker asks the plugin about one study of one image: a claim, whether it holds before the
#: storing and before the clearing away, the end.
_QUESTIONS: Final = 2
MEGABYTE: Final = 1024 * 1024
_Server = TypeVar("_Server")


def main() -> None:
    """Measure, and print the tables or write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=7, help="that the worker anonymises")
    parser.add_argument("--rows", type=int, default=3000, help="studies in the ledger")
    parser.add_argument("--messages", type=int, default=2000, help="at the broker")
    parser.add_argument("--only", metavar="SECTION", help="machine, worker, ledger or broker")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    wanted = parser.parse_args()
    sections: dict[str, Callable[[], str]] = {
        "machine": _machine,
        "worker": partial(_worker, wanted.studies),
        "ledger": partial(_ledgers, wanted.rows),
        "broker": partial(_broker, wanted.messages),
    }
    for name, measure in sections.items():
        if wanted.only not in (None, name):
            continue
        text = measure()
        if wanted.write is None:
            print(f"\n## {name}\n\n{text}", flush=True)  # noqa: T201
        else:
            replace_section(wanted.write, name, text)


def _processor() -> float:
    """Give the seconds that this process and its ended children have used."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    cores = os.cpu_count()
    load = os.getloadavg()[0]
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} with {cores} cores of "
        f"{', '.join(sorted(names)) or platform.machine()}, Python {platform.python_version()}, "
        f"one thread; the machine's load was {load:.1f}."
    )


# --- Worker -----------------------------------------------------------------------------------


def _worker(studies: int) -> str:
    content = Path(str(pydicom.data.get_testdata_file(IMAGE))).read_bytes()
    wall = time.perf_counter()
    engine = Engine.load(REPO / "model" / "bundle", device="cpu", threads=1)
    tools = pipeline.Tools(
        engine=engine, pseudonyms=Pseudonyms(bytes(range(32))), text_finder=TextFinder(1)
    )
    loading = _processor()
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        destinations = create_destinations({"export": Folder(kind="folder", folder=Path(folder))})
        # The first one loads what the others find loaded.
        first = _one_study(content, tools, destinations)
        for _ in range(studies):
            for step, seconds in _one_study(content, tools, destinations).items():
                taken.setdefault(step, []).append(seconds)
        written = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = [(step, f"{median(seconds):.3f}") for step, seconds in taken.items()]
    dataset = pydicom.dcmread(Path(str(pydicom.data.get_testdata_file(IMAGE))))
    said = (
        f"Medians of {studies} studies of one image of {dataset.Rows} × {dataset.Columns} pixels, "
        f"to a folder; {(time.perf_counter() - wall):.0f} s by the clock in all."
    )
    return "\n\n".join(
        (
            said,
            table(["step", "processor seconds"], rows),
            table(
                ["", "figure"],
                [
                    ("until a worker is ready, processor seconds", f"{loading:.1f}"),
                    ("of its first study, processor seconds", f"{first['**all**']:.1f}"),
                    ("largest memory of a worker, MB", f"{peak:.0f}"),
                    ("read of a study, MB", f"{len(content) / MEGABYTE:.1f}"),
                    ("written of a study, MB", f"{written / MEGABYTE:.1f}"),
                ],
            ),
        )
    )


def _one_study(
    content: bytes, tools: pipeline.Tools, destinations: Destinations
) -> dict[str, float]:
    """Give the processor's seconds of each step of one study, and of all of it."""
    source, ledger = (
        FakeSource({instance_id(0): content}, study_uid="1.2.840.99999.1"),
        FakeLedger(),
    )
    found: dict[str, float] = {}

    def anonymize(given: bytes, with_tools: pipeline.Tools) -> pipeline.Anonymized:
        result = pipeline.anonymize(given, with_tools, clock=_processor)
        found.update(result.durations)
        return result

    begin = _processor()
    outcome = process_study(
        study_message(), source, destinations, ledger, tools, anonymize=anonymize
    )
    whole = _processor() - begin
    if outcome.state is not State.EXPORTED:
        raise SystemExit(f"the study was not exported: {outcome}")
    return {**found, "store, compare, the rest": whole - sum(found.values()), "**all**": whole}


# --- Ledger -----------------------------------------------------------------------------------


def _ledgers(studies: int) -> str:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ledger.sqlite"
        rows.append(("SQLite", *_ledger(f"sqlite:///{file}", None, studies, file.parent)))
    with _or_nothing(running_postgres) as server:
        if server is not None:
            url, password = server.new_database(), SecretStr(server.password)
            name = url.rpartition("/")[2]
            server.query(f"ALTER DATABASE {name} SET synchronous_commit = off")
            size = partial(server.query, f"SELECT pg_database_size('{name}')")
            rows.append(("PostgreSQL", *_ledger(url, password, studies, size)))
    head = ["", "bytes a study", "processor ms a study", "transactions a study"]
    said = (
        "The plugin's share of the processor; a PostgreSQL server's own is not in it. Nothing was "
        "synced to the disk here, which both wait for at each transaction otherwise."
    )
    return f"{studies} studies from arrival to export, one after the other. {said}\n\n" + table(
        head, rows
    )


def _ledger(
    url: str, password: SecretStr | None, studies: int, size: Path | Callable[[], str]
) -> tuple[str, str, str]:
    def bytes_now() -> int:
        if isinstance(size, Path):
            return sum(file.stat().st_size for file in size.iterdir())
        return int(size())

    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    engine = open_database(url, password)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _unsynced)
        engine.dispose()
    ledger = Ledger(engine, lambda: now[0])
    before, begin, writes = bytes_now(), _processor(), 0
    for number in range(studies):
        now[0] += timedelta(seconds=1)
        writes = _whole_way(ledger, number, now[0])
    used = _processor() - begin
    engine.dispose()  # what SQLite kept beside its file is in it after that
    grown = (bytes_now() - before) / studies
    return f"{grown:.0f}", f"{used / studies * 1e3:.1f}", f"{writes}"


def _unsynced(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=OFF")


def _whole_way(ledger: Ledger, number: int, now: datetime) -> int:
    """Take one study from its arrival to its export; gives the number of its transactions."""
    digits = f"{uuid.uuid4().hex}{number:08x}"
    study_id = "-".join(digits[place : place + 8] for place in range(0, 40, 8))
    ledger.note({study_id: now}, cursor=number)
    decision = Decision(None, ("archive", "research"), source="MODALITY1")
    ledger.settle(study_id, decision, content=uuid.uuid4().hex * 2, instances=2, last_update=now)
    [message] = ledger.outbox(1)
    ledger.sent(message)
    claim = ledger.report(report_of(message, State.PROCESSING))
    for _ in range(_QUESTIONS):
        ledger.report(report_of(message, State.PROCESSING, attempt=claim.attempt))
    steps = ("fetch", "inspect", "decode", "text", "deform", "deidentify", "encode", "check")
    measures = ("max_displacement_px", "mean_displacement_px", "changed_share", "psnr_db")
    end = report_of(
        message,
        State.EXPORTED,
        attempt=claim.attempt,
        instances=2,
        durations=dict.fromkeys((*steps, "store", "verify"), 0.123456789),
        measures=dict.fromkeys(measures, 12.3456789),
        key_id="0" * 16,
        profile="0" * 64,
    )
    if not ledger.report(end).proceed:
        raise SystemExit("the ledger took no report")
    return 5 + _QUESTIONS


# --- Broker -----------------------------------------------------------------------------------


def _broker(messages: int) -> str:
    with _or_nothing(running_redis) as server:
        if server is None:
            return "Redis is not installed."
        broker = RedisBroker(server.url, None, "prichexy")
        broker.send(_message(0))
        before, begin = _used(broker), _processor()
        for number in range(1, messages + 1):
            broker.send(_message(number))
        used, grown = _processor() - begin, _used(broker) - before
        length = sum(len(raw) for raw in broker._redis.lrange("prichexy", 0, -1)) / (messages + 1)
        broker.close()
    return table(
        ["", "figure"],
        [
            ("Redis's memory of a waiting message, bytes", f"{grown / messages:.0f}"),
            ("a message on the way, bytes", f"{length:.0f}"),
            ("the plugin's sending of one, processor ms", f"{used / messages * 1e3:.2f}"),
        ],
    )


def _message(number: int) -> StudyMessage:
    study_id = "-".join([f"{number:08x}"] * 5)
    return StudyMessage(f"{number:032x}", study_id, 1, ("archive", "research"))


def _used(broker: RedisBroker) -> int:
    return int(broker._redis.info("memory")["used_memory"])


@contextmanager
def _or_nothing(running: Callable[[], AbstractContextManager[_Server]]) -> Iterator[_Server | None]:
    """Run a server for the block, or give None where it is not installed."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(running())
        except pytest.skip.Exception:
            yield None
            return
        yield server


if __name__ == "__main__":
    main()
