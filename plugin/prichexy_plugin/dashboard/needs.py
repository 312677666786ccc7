"""What a person should look at now, the worst first. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from prichexy_plugin.dashboard.view import UNPROVED_COUNTED, Overview
from prichexy_plugin.dashboard.wording import ago, amount
from prichexy_plugin.disk import Disk
from prichexy_plugin.newcomers import MOST_WORKERS
from prichexy_plugin.pauses import Pause, Stage
from prichexy_plugin.records import WorkerRecord
from prichexy_worker.contract import ANNOUNCE_INTERVAL_SECONDS, SOFTWARE_VERSION, ModelInfo, State
from prichexy_worker.retry import Blame

__all__ = ["Need", "is_silent", "needs_of", "troubles_of"]

#: A worker that missed three announcements is shown as silent.
_SILENT_AFTER: Final = timedelta(seconds=3 * ANNOUNCE_INTERVAL_SECONDS)
#: So many workers are named; of others only how many they are.
_NAMED: Final = 5
#: Orthanc refuses what it cannot store, so this is said while there is time to make room.
_SMALL_SHARE: Final = 0.1
#: What a pause does.
_WHILE_PAUSED: Final[Mapping[Stage, str]] = {
    Stage.INTAKE: "Orthanc receives, and what arrives is decided over when it goes on.",
    Stage.EXPORT: "What workers have comes to its end; all others wait here until it goes on.",
    Stage.TARGET: "What workers have comes to its end; all others for it wait until it goes on.",
}
#: Where to look when a circuit is open.
_ADVICE: Final[Mapping[Blame, str]] = {
    Blame.SOURCE: "Check that workers reach this Orthanc with WorkerUser's password.",
    Blame.TARGET: "Check the export targets: do they run, is a disk full, are the passwords right?",
    Blame.WORKER: "The workers' logs name the error by the job id.",
    Blame.RESULT: (
        "Look at some of them: is a new model, a codec or a kind of sender behind it? When it is "
        "mended, or these are rightly held back, try one of them again: then all others go."
    ),
}


@dataclass(frozen=True, slots=True)
class Need:
    """One thing to look at: ``grave`` keeps studies from going on; ``href`` is below "prichexy"."""

    title: str
    advice: str
    grave: bool = False
    points: tuple[str, ...] = ()
    href: str | None = None
    link: str = ""


def is_silent(worker: WorkerRecord, now: datetime) -> bool:
    """Say whether a worker has missed its announcements, also where the clock was ahead then."""
    return abs(now - worker.seen) > _SILENT_AFTER


def needs_of(overview: Overview, *, disk: Disk | None, decides: bool = False) -> tuple[Need, ...]:
    """Name everything, the gravest first; to who ``decides``, with where that is done."""
    needs = [
        *troubles_of(overview),
        *_of_pauses(overview),
        *_of_workers(overview),
        *_of_studies(overview, decides=decides),
        *_of_disk(disk),
        *_of_models(overview),
    ]
    return tuple(sorted(needs, key=lambda need: not need.grave))


def troubles_of(overview: Overview) -> Iterator[Need]:
    """Name what keeps all studies waiting, and what cannot be read."""
    waiting = overview.counts.get(State.PENDING, 0)
    if overview.problems:
        yield Need(
            "The configuration is wrong: nothing is taken in and nothing is handed on",
            "Orthanc receives and serves as before. Correct its configuration and start it again: "
            "what arrived meanwhile is then taken in.",
            grave=True,
            points=overview.problems,
        )
    elif overview.ledger != "ok":
        yield Need(
            f"The ledger {overview.ledger}",
            "Orthanc receives and serves as before. Nothing is taken in until the ledger can be "
            "used; what arrived meanwhile is taken in then. Check the database that "
            "PriCheXy.Ledger.Url names (by default a file in Orthanc's StorageDirectory), or run "
            "the software that wrote it.",
            grave=True,
        )
    elif overview.troubles:
        yield Need(
            "The gateway cannot go on with its work",
            "Orthanc receives and serves as before; the plugin tries again all the time. "
            "Orthanc's log says when it began.",
            grave=True,
            points=overview.troubles,
        )
    elif not overview.broker.reachable:
        yield Need(
            "The broker does not answer",
            f"{overview.broker.detail}. Orthanc receives as before; {waiting} "
            f"{'study waits' if waiting == 1 else 'studies wait'} here and will be sent when it is "
            "back.",
            grave=True,
        )
    for one in overview.other_keys[:_NAMED]:
        where = " and ".join(one.targets) or "the workers' own targets"
        yield Need(
            f"Worker {one.worker_id} has another pseudonyms' key",
            f"It gets no study for {where}: what went there before is under key {one.known}, and "
            f"its key {one.key_id} would make another patient of every patient. Give it the right "
            "pseudonyms.key_file. If the key was changed, name the former one in its "
            "pseudonyms.retired_key_files; if that one is lost, see Pseudonyms.AcceptKeys of "
            "Orthanc's configuration.",
            grave=True,
        )
    if len(overview.other_keys) > _NAMED:
        yield Need(
            f"{len(overview.other_keys) - _NAMED} more workers have another pseudonyms' key",
            "It is as with those that are named.",
            grave=True,
        )
    for circuit in overview.circuits:
        last = ""
        if circuit.opened is not None:
            last = f", the last of them {ago(circuit.opened, overview.at)}"
        why = "" if circuit.reason is None else circuit.reason.sentence
        whose = f" of studies for {' and '.join(circuit.targets)}" if circuit.targets else ""
        yield Need(
            f"The handing out{whose} is stopped: {why}",
            f"{len(circuit.studies)} different studies failed for it one after the other{last}. "
            "All others that need the same wait here and lose no attempt. One at a time is let "
            "through to see whether it works again; the first that comes through lets all others "
            "go. "
            f"{_ADVICE[circuit.blame]}",
            grave=True,
        )
    if overview.unreadable:
        what = (
            "1 study cannot"
            if overview.unreadable == 1
            else f"{overview.unreadable} studies cannot"
        )
        yield Need(
            f"{what} be read from Orthanc's storage",
            "The plugin looks again for some hours and then rejects what is still unreadable; at "
            "what somebody turned away or has withdrawn it goes on to look each hour. "
            "Check that the folder of StorageDirectory is mounted and whole.",
        )


def _of_pauses(overview: Overview) -> Iterator[Need]:
    for pause in overview.pauses:
        yield Need(
            f"{_paused(pause)} is paused since {ago(pause.since, overview.at)}",
            f"{pause.reason.sentence} {_WHILE_PAUSED[pause.stage]}",
            grave=True,
            href="/pauses",
            link="Let it go on, or see by whom",
        )


def _paused(pause: Pause) -> str:
    if pause.stage is Stage.TARGET:
        return f"The export {f'to {pause.target}' if pause.target else 'to no named target'}"
    return "The intake" if pause.stage is Stage.INTAKE else "The export"


def _of_workers(overview: Overview) -> Iterator[Need]:
    if overview.ledger != "ok":
        return
    if len(overview.workers) >= MOST_WORKERS:
        yield Need(
            f"{MOST_WORKERS} workers have announced themselves, which is as many as are known",
            "Another one takes the place of one that fell silent. Where these are not yours, "
            "somebody uses the password of WorkerUser: give it another one in Orthanc's "
            "configuration, and to your workers.",
            grave=True,
        )
    silent = [one for one in overview.workers if is_silent(one, overview.at)]
    if len(silent) == len(overview.workers):
        yield Need(
            "No worker is alive",
            "Studies are taken in and wait. Start a worker, or look into the log of one that "
            "should run: prichexy doctor says what it needs.",
            grave=True,
        )
    elif silent:
        names = _some([one.announcement.worker_id for one in silent])
        yield Need(
            f"{_of(len(silent), 'worker', 'workers')} fell silent",
            f"{names}: what it had is given to another one. One that was stopped on purpose is "
            "forgotten after a day.",
        )
    odd = sorted(
        one.announcement.worker_id
        for one in overview.workers
        if one.announcement.software != SOFTWARE_VERSION
    )
    if odd:
        yield Need(
            "Workers run another version than the plugin",
            f"The plugin is {SOFTWARE_VERSION}. Bring these to the same version: {_some(odd)}.",
        )


def _of_studies(overview: Overview, *, decides: bool) -> Iterator[Need]:
    quarantined = overview.counts.get(State.QUARANTINED, 0)
    failed = overview.counts.get(State.FAILED, 0)
    if quarantined:
        yield Need(
            f"{_of(quarantined, 'study is', 'studies are')} in quarantine",
            f"{'It' if quarantined == 1 else 'They'} could not be made safe and "
            f"{'was' if quarantined == 1 else 'were'} not released. "
            f"{'Its page' if quarantined == 1 else 'Each'} says why, and "
            f"{'it' if quarantined == 1 else 'each'} can be tried again, turned away or, where a "
            "look can tell, released.",
            href="/desk" if decides else "/studies?state=quarantined",
            link=f"{'Decide over' if decides else 'Look at'} "
            f"{'it' if quarantined == 1 else 'them'}",
        )
    if failed:
        yield Need(
            f"{_of(failed, 'study', 'studies')} failed",
            f"{'It was' if failed == 1 else 'They were'} given up after several attempts. When the "
            f"cause is mended, {'it' if failed == 1 else 'they'} can be tried again; else, turned "
            "away.",
            href="/studies?state=failed",
            link="Look at it" if failed == 1 else "Look at them",
        )
    if overview.unproved:
        many = overview.unproved > UNPROVED_COUNTED
        told = f"More than {UNPROVED_COUNTED}" if many else str(overview.unproved)
        yield Need(
            f"{told} {'export is' if overview.unproved == 1 else 'exports are'} not verified",
            "They were sent and nobody refused them, but nothing shows that an export target holds "
            "all of them: a DICOM node does so by storage commitment alone. No retention rule "
            "deletes their originals. Look there; or let the node commit itself and try them "
            "again.",
            href="/studies?state=exported&verified=no",
            link="Look at them",
        )
    for group in overview.late:
        yield Need(
            f"{_of(group.count, 'study has', 'studies have')} been {group.state.value} for "
            f"unusually long, the longest since {ago(group.oldest.since, overview.at)}",
            group.cause.sentence,
            href=f"/studies?state={group.state.value}",
            link="Look at them",
        )


def _of_disk(disk: Disk | None) -> Iterator[Need]:
    if disk is not None and disk.free < _SMALL_SHARE * disk.total:
        yield Need(
            f"Only {amount(disk.free)} are left on Orthanc's disk",
            "When it is full, Orthanc refuses what modalities send. Delete originals that are no "
            "longer needed, or give it more room.",
        )


def _of_models(overview: Overview) -> Iterator[Need]:
    alive = [one for one in overview.workers if not is_silent(one, overview.at)]
    models = {worker.announcement.model for worker in overview.workers}
    for title, statement in sorted({_of_model(one) for one in models if not one.protects})[:_NAMED]:
        yield Need(title, statement)
    if len({one.announcement.model.digest for one in alive}) > 1:
        yield Need(
            "Workers use different models",
            "After a promotion this passes as soon as each has ended its study. If it stays, name "
            "the same model store in all their settings.",
        )


def _of_model(model: ModelInfo) -> tuple[str, str]:
    """Say why results of the model may not be taken for anonymous, and what is known of it."""
    reasons = {
        "untrained": "The generator's weights are untrained",
        "trained": "It was not fully measured what the model in use hides",
    }
    return reasons.get(model.evidence, "The model in use was not shown to protect"), model.statement


def _of(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _some(names: Sequence[str]) -> str:
    """Name the first few of many."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
