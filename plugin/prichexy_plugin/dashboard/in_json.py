"""How the REST API renders what the plugin knows, in JSON. Pure."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from prichexy_plugin.backfill import Backfill
from prichexy_plugin.dashboard.wording import actor_for
from prichexy_plugin.key_watch import Refusal
from prichexy_plugin.pauses import Pause
from prichexy_plugin.records import EventRecord, StudyRecord, WorkerRecord
from prichexy_plugin.security import Role
from prichexy_plugin.sweep import Group
from prichexy_plugin.trail import ChainState
from prichexy_worker.retry import Circuit

__all__ = [
    "audit",
    "backfill",
    "circuit",
    "event",
    "group",
    "pause",
    "refusal",
    "study",
    "worker",
]


def study(study: StudyRecord) -> dict[str, object]:
    """Give a study as lists and its own address tell of it."""
    return {
        "job_id": study.job_id,
        "study_id": study.study_id,
        "state": study.state.value,
        "reason": None if study.reason is None else study.reason.value,
        "reason_sentence": study.reason_sentence,
        "revision": study.revision,
        "attempts": study.attempts,
        "excused": study.excused,
        "instances": study.instances,
        "targets": list(study.targets),
        "first_seen": study.first_seen.isoformat(),
        "updated": study.updated.isoformat(),
        "worker_id": study.worker_id,
        "durations": dict(study.durations),
        "measures": dict(study.measures),
        "key_id": study.key_id,
        "profile": study.profile,
    }


def event(event: EventRecord, role: Role) -> dict[str, object]:
    """Give a line of a study's audit trail; who acted is told as ``role`` may know it."""
    return {
        "at": event.at.isoformat(),
        "from": None if event.from_state is None else event.from_state.value,
        "to": event.to_state.value,
        "actor": actor_for(role, event.actor),
        "reason": None if event.reason is None else event.reason.value,
    }


def backfill(backfill: Backfill, *, names_people: bool) -> dict[str, object]:
    """Give how far a backfill is; who began and stopped it only with ``names_people``."""
    people = {"started_by": backfill.started_by, "stopped_by": backfill.stopped_by}
    return {
        "running": backfill.running,
        "started": backfill.started.isoformat(),
        "per_minute": backfill.per_minute,
        "total": backfill.total,
        "seen": backfill.seen,
        "found": backfill.found,
        "again": backfill.again,
        "ended": None if backfill.ended is None else backfill.ended.isoformat(),
        **(people if names_people else {}),
    }


def audit(chain: ChainState) -> dict[str, object]:
    """Give where the audit trail ends; ``untold`` lines wait for the syslog server, if any."""
    return {
        "head": {"number": chain.head.number, "digest": chain.head.digest},
        "checkpoint": {"number": chain.checkpoint.number, "digest": chain.checkpoint.digest},
        "lines": chain.lines,
        "keyed": chain.keyed,
        "ends_at_head": chain.ends_at_head,
        "untold": None if chain.told is None else chain.head.number - chain.told,
    }


def refusal(one: Refusal) -> dict[str, object]:
    """Give a worker that was refused for its key."""
    return {"worker_id": one.worker_id, "key_id": one.key_id, "known": one.known}


def group(group: Group, *, named: bool) -> dict[str, object]:
    """Give studies that wait unusually long for one cause; its oldest by name, if ``named``."""
    job = {"job_id": group.oldest.job_id} if named else {}
    return {
        "state": group.state.value,
        "cause": group.cause.value,
        "sentence": group.cause.sentence,
        "count": group.count,
        "oldest": {**job, "since": group.oldest.since.isoformat()},
    }


def circuit(circuit: Circuit) -> dict[str, object]:
    """Give an open circuit."""
    return {
        "blame": circuit.blame.value,
        "targets": list(circuit.targets),
        "reason": None if circuit.reason is None else circuit.reason.value,
        "reason_sentence": None if circuit.reason is None else circuit.reason.sentence,
        "opened": None if circuit.opened is None else circuit.opened.isoformat(),
        "failed_probes": circuit.failed_probes,
        "probe_at": None if circuit.probe_at is None else circuit.probe_at.isoformat(),
    }


def pause(pause: Pause) -> dict[str, object]:
    """Give a pause, without who began it."""
    return {
        "stage": pause.stage.value,
        "target": pause.target,
        "since": pause.since.isoformat(),
        "reason": pause.reason.value,
        "reason_sentence": pause.reason.sentence,
    }


def worker(worker: WorkerRecord, at: datetime) -> dict[str, object]:
    """Give a worker as it announced itself, seen so many seconds before ``at``."""
    told = asdict(worker.announcement)
    del told["targets"]  # addresses are for who has a role on the dashboard
    return {
        **told,
        "seen_seconds_ago": max(0.0, (at - worker.seen).total_seconds()),
    }
