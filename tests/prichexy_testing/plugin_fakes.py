"""Small stand-ins for what surrounds the plugin, and values that many of its tests need."""

from __future__ import annotations

import sys
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from prichexy_plugin.broker import BrokerUnavailable
from prichexy_testing.fake_orthanc import Answer, FakeOrthanc
from prichexy_worker.contract import (
    ModelInfo,
    Reason,
    State,
    StudyMessage,
    StudyReport,
    WorkerAnnouncement,
)

__all__ = ["CHEST", "HIP", "FakeBroker", "FakeClock", "announcement_of", "load_script", "report_of"]

SCRIPT: Final = Path(__file__).resolve().parents[2] / "plugin" / "prichexy_orthanc.py"
CHEST: Final[dict[str, Any]] = {
    "Modality": "CR",
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1",
    "BodyPartExamined": "CHEST",
    "ViewPosition": "PA",
    "StationName": "ROOM 1",
    "PatientName": "DOE^JANE",
    "PatientID": "SECRET-4711",
}
HIP: Final[dict[str, Any]] = {**CHEST, "BodyPartExamined": "HIP"}


class FakeClock:
    """A clock that stands until it is moved; begins on a full second, as Orthanc keeps those."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class FakeBroker:
    """A broker that keeps what it is sent, until it is ``down`` or loses all of it.

    One that is ``crowded`` cannot tell which messages it has.

    ``taken`` counts what workers have taken and not acknowledged.
    """

    def __init__(self) -> None:
        self.messages: list[StudyMessage] = []
        self.sent: list[StudyMessage] = []
        self.queues: dict[str, str] = {}
        self.taken = 0
        self.down = False
        self.crowded = False
        self.closed = False

    def send(self, message: StudyMessage, queue: str = "") -> None:
        if self.down:
            raise BrokerUnavailable("Redis at here:1: TimeoutError")
        self.messages.append(message)
        self.sent.append(message)
        self.queues[message.job_id] = queue

    def waiting(self, queue: str = "") -> int:
        if self.down:
            raise BrokerUnavailable("Redis at here:1: TimeoutError")
        return sum(self.queues.get(one.job_id, "") == queue for one in self.messages)

    def unacknowledged(self) -> int:
        if self.down:
            raise BrokerUnavailable("Redis at here:1: TimeoutError")
        return self.taken

    def held(self, jobs: Collection[str], queues: Collection[str] = ("",)) -> frozenset[str] | None:
        if self.down:
            raise BrokerUnavailable("Redis at here:1: TimeoutError")
        if self.crowded:
            return None
        here = {one.job_id for one in (self.sent if self.taken else self.messages)}
        return frozenset(here & set(jobs))

    def close(self) -> None:
        self.closed = True


def load_script(orthanc: FakeOrthanc) -> ModuleType:
    """Run the plugin's script as Orthanc does, with ``orthanc`` as the module of that name."""
    module = ModuleType("orthanc")
    names = [name for name in dir(orthanc) if name[0].isupper()]
    module.__dict__.update({name: getattr(orthanc, name) for name in names})
    module.__dict__["RestOutput"] = Answer
    spec = spec_from_file_location("prichexy_orthanc", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = module_from_spec(spec)
    before = sys.modules.get("orthanc")
    sys.modules["orthanc"] = module
    try:
        spec.loader.exec_module(script)
    finally:
        del sys.modules["orthanc"]
        if before is not None:
            sys.modules["orthanc"] = before
    return script


def report_of(
    message: StudyMessage,
    state: State,
    reason: Reason | None = None,
    *,
    worker_id: str = "worker-1",
    **values: Any,
) -> StudyReport:
    """Give what a worker reports on ``message``."""
    return StudyReport(
        job_id=message.job_id,
        revision=message.revision,
        state=state,
        worker_id=worker_id,
        reason=reason,
        **values,
    )


def announcement_of(
    worker_id: str = "worker-1",
    *,
    evidence: str = "untrained",
    statement: str = "Random weights.",
    protects: bool = False,
) -> WorkerAnnouncement:
    """Give a worker's announcement."""
    return WorkerAnnouncement(
        worker_id=worker_id,
        software="0.1.0",
        device="cpu",
        device_reason="no CUDA device was found",
        model=ModelInfo(
            name="prichexy-unet",
            model_version="0.1.0",
            digest="ab" * 32,
            evidence=evidence,
            statement=statement,
            protects=protects,
        ),
    )
