"""Checks of an installation, each with what was found and what to do.

They start from a worker's settings, because these name all the parts of a gateway; so they serve
a native gateway and one made of images. Nothing is stored or changed anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import redis

from prichexy_gateway.client import Health, OrthancClient, Unreachable, ingest_of
from prichexy_gateway.errors import Misconfigured
from prichexy_gateway.expiry import certificate_files, valid_until
from prichexy_model.bundle import WEIGHTS_FILE, Bundle, read_bundle
from prichexy_model.weights import WeightsError
from prichexy_worker import gate
from prichexy_worker.contract import ANNOUNCE_INTERVAL_SECONDS, SOFTWARE_VERSION
from prichexy_worker.errors import Retryable
from prichexy_worker.export import create_target
from prichexy_worker.project import read_project
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.settings import Settings
from prichexy_worker.target_settings import Folder, PngFolder, default_names

__all__ = ["Check", "examine"]

#: A certificate that ends sooner is to be seen to.
_SOON_DAYS: Final = 30
#: A worker that missed this many announcements is taken for dead.
_MISSED: Final = 3


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. ``remedy`` says what to do when it is not ``ok``."""

    name: str
    ok: bool
    finding: str
    remedy: str = ""


def examine(settings: Settings) -> Iterator[Check]:
    """Give the checks as they are made. Raises nothing for what is wrong with the gateway."""
    yield _key_file(settings.pseudonyms.key_file)
    yield _project_profile(settings.profile.file)
    bundle, check = _model(settings.model.bundle)
    yield check
    yield _release_gate()
    yield from _certificates(settings, datetime.now(UTC))
    with ingest_of(settings) as ingest:
        reachable = _reachable(ingest)
        yield reachable
        if reachable.ok:
            yield _locked(ingest)
            health, check = _plugin(ingest)
            yield check
            if health is not None:
                yield from _what_the_plugin_says(health)
                alive = _alive(health.workers)
                yield from _workers(alive, bundle)
                yield from _other_keys(health.other_keys)
                if health.queues:
                    yield _queues(health.queues, alive)
                yield _routes(health.targets, settings)
    yield _broker(settings)
    yield from _targets(settings)


def _key_file(path: Path) -> Check:
    name = "Pseudonym key"
    try:
        pseudonyms = Pseudonyms.from_key_file(path)
    except Misconfigured as error:
        remedy = f"Look at {path}. Never make a new key lightly: all pseudonyms would change."
        return Check(name, False, str(error), remedy)
    return Check(name, True, f"only its owner can read it; key id {pseudonyms.key_id}")


def _project_profile(file: Path | None) -> Check:
    name = "Project profile"
    try:
        profile = read_project(file).profile
    except Misconfigured as error:
        remedy = "Mend the file, or take profile.file out. Until then no worker starts."
        return Check(name, False, str(error), remedy)
    options = ", ".join(sorted(profile.options)) or "no options"
    return Check(name, True, f"{profile.name}, {options}; SHA-256 {profile.digest[:16]}")


def _model(folder: Path) -> tuple[Bundle | None, Check]:
    name = "Model"
    remedy = f"Put the bundle back as it was released: {folder}"
    try:
        bundle = read_bundle(folder)
        digest = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    except WeightsError as error:
        return None, Check(name, False, str(error), remedy)
    except OSError as error:
        return None, Check(name, False, f"no weights ({error.strerror})", remedy)
    if digest != bundle.digest:
        return None, Check(name, False, "the weights are not those of the metadata", remedy)
    return bundle, Check(
        name, True, f"digest {digest[:12]}… as it should be; {bundle.evidence}. {bundle.statement}"
    )


def _release_gate() -> Check:
    name = "Release gate"
    try:
        gate.installed()
    except Misconfigured as error:
        remedy = "Run script/install again where the workers run. Until then no worker starts."
        return Check(name, False, str(error), remedy)
    return Check(name, True, "dciodvfy runs here")


def _certificates(settings: Settings, now: datetime) -> Iterator[Check]:
    """Look until when the certificates that the settings name are valid."""
    for key, file in certificate_files(settings):
        name = f"Certificate {key}"
        remedy = f"Put a newer one into {file}, then start again whatever reads it: at start alone."
        try:
            end = valid_until(file)
        except ValueError as error:
            yield Check(name, False, str(error), remedy)
            continue
        days = (end - now).days
        finding = f"valid until {end:%Y-%m-%d}"
        if end <= now:
            finding = f"has been invalid since {end:%Y-%m-%d}"
        yield Check(name, days >= _SOON_DAYS, finding, remedy)


def _reachable(client: OrthancClient) -> Check:
    try:
        system = client.system()
    except Unreachable as error:
        remedy = "Start it: prichexy serve. If it runs, its log says why it does not answer."
        return Check(client.name, False, str(error), remedy)
    return Check(client.name, True, f"answers at {client.url}, version {system.get('Version')}")


def _locked(client: OrthancClient) -> Check:
    name = "Login"
    remedy = "Set AuthenticationEnabled and passwords in ingest.json (PRICHEXY_ADMIN_PASSWORD)."
    try:
        opened = any(
            client.answers_to(user, password)
            for user in ("admin", "worker", "orthanc")
            for password in ("", user)
        )
    except Unreachable as error:
        return Check(name, False, str(error), remedy)
    if opened:
        return Check(name, False, "an empty or default password is let in", remedy)
    return Check(name, True, "needs a password")


def _plugin(client: OrthancClient) -> tuple[Health | None, Check]:
    name = "Plugin"
    remedy = "See the ingest Orthanc's log for why it was not loaded; PythonScript in ingest.json."
    try:
        health = client.health()
    except Unreachable as error:
        return None, Check(name, False, str(error), remedy)
    if health.problems:
        finding = " ".join(health.problems)
        return health, Check(name, False, finding, "See section PriCheXy of ingest.json.")
    if health.software != SOFTWARE_VERSION:
        finding = f"version {health.software}, but this is {SOFTWARE_VERSION}"
        return health, Check(name, False, finding, "Install the same version everywhere.")
    return health, Check(name, True, f"version {health.software}")


def _what_the_plugin_says(health: Health) -> Iterator[Check]:
    yield Check(
        "Ledger",
        health.ledger == "ok",
        health.ledger,
        "Is the disk full? Is its folder writable? See the ingest Orthanc's log.",
    )
    yield Check(
        "Redis, from the plugin",
        health.broker_reachable,
        health.broker_detail or ("reachable" if health.broker_reachable else "not reachable"),
        "Start Redis; check Broker in ingest.json. What has arrived is kept and goes out then.",
    )


def _alive(workers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [
        worker
        for worker in workers
        if float(worker["seen_seconds_ago"]) < _MISSED * ANNOUNCE_INTERVAL_SECONDS
    ]


def _workers(alive: Sequence[Mapping[str, Any]], bundle: Bundle | None) -> Iterator[Check]:
    if not alive:
        yield Check("Workers", False, "none is alive", "Start one; its log says why it ended.")
    for worker in alive:
        name = f"Worker {worker['worker_id']}"
        model = worker["model"]
        if worker["software"] != SOFTWARE_VERSION:
            remedy = "Install the same version everywhere, then restart this worker."
            yield Check(name, False, f"version {worker['software']}", remedy)
        elif bundle is not None and model["digest"] != bundle.digest:
            finding = f"works with another model than these settings name: {model['digest'][:12]}…"
            remedy = (
                "After a promotion give it a minute, or until its study ends. Its log says why it "
                "could not load a model. Or do its settings name another bundle?"
            )
            yield Check(name, False, finding, remedy)
        else:
            seconds = float(worker["seen_seconds_ago"])
            finding = (
                f"alive {seconds:.0f} s ago, computes on {worker['device']} "
                f"with model {model['digest'][:12]}…"
            )
            yield Check(name, True, finding)


def _other_keys(refused: Sequence[Mapping[str, Any]]) -> Iterator[Check]:
    for one in refused:
        finding = f"has key {one['key_id']}, but was exported under {one['known']}; gets no study"
        remedy = "Give it the right pseudonyms.key_file; see docs/pseudonyms.md, Changing the key."
        yield Check(f"Pseudonym key of worker {one['worker_id']}", False, finding, remedy)


def _queues(named: Sequence[str], alive: Sequence[Mapping[str, Any]]) -> Check:
    """Look whether a worker takes studies from every queue that a rule of the plugin sends to."""
    name = "Intake rules and queues"
    # One of older software does not tell its queues.
    any_queue = any(not worker.get("queues") for worker in alive)
    taken = {queue for worker in alive for queue in worker.get("queues") or ()}
    waiting = [] if any_queue else [queue for queue in named if queue not in taken]
    if waiting:
        remedy = "Start a worker with broker.queue set to it, or correct Queue in Intake.Rules."
        return Check(name, False, f"no worker takes studies from {', '.join(waiting)}", remedy)
    return Check(name, True, f"workers take studies from {', '.join(named)}")


def _routes(named: Sequence[str], settings: Settings) -> Check:
    """Look whether these workers have every target that a rule of the plugin names."""
    name = "Intake rules and export targets"
    known = settings.export_targets()
    missing = [target for target in named if target not in known]
    if missing:
        remedy = "Add them as targets.NAME to the workers' settings, or correct Intake.Rules."
        return Check(name, False, f"rules name unknown targets: {', '.join(missing)}", remedy)
    default = ", ".join(sorted(default_names(known)))
    finding = f"rules name {', '.join(named) or 'none'}; studies of other rules go to {default}"
    return Check(name, True, finding)


def _broker(settings: Settings) -> Check:
    name = "Redis, from here"
    remedy = "Start Redis; check broker.url and broker.password_file of the worker."

    def ping() -> bool:
        with redis.Redis.from_url(
            settings.broker.url,
            password=settings.broker.secret(),
            socket_timeout=5,
            socket_connect_timeout=5,
        ) as client:
            return bool(client.ping())

    place = urlsplit(settings.broker.url)
    where = f"{place.hostname}:{place.port}"
    problem = _problem(ping)
    if problem:
        return Check(name, False, f"{where}: {problem}", remedy)
    return Check(name, True, f"answers at {where}")


def _problem(question: Callable[[], object]) -> str:
    try:
        question()
    except (redis.RedisError, OSError) as error:
        return type(error).__name__
    return ""


def _targets(settings: Settings) -> Iterator[Check]:
    for key, target in settings.export_targets().items():
        name = f"Export target {key}"
        try:
            with closing(create_target(target)) as made:
                made.check()
        except (Retryable, Misconfigured) as error:
            remedy = f"Check the section of {key} in the worker's settings, and the target itself."
            yield Check(name, False, str(error), remedy)
            continue
        way = "" if target.encrypted else ", not encrypted on the way"
        if (
            isinstance(target, Folder | PngFolder)
            and not target.marker
            and target.folder.is_mount()
        ):
            way = "; it is a mount point, which is there without its share, too: give it a marker"
        yield Check(name, True, f"{target.place} takes what we send{way}")
