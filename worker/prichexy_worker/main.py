"""``python -m prichexy_worker``: one worker, from its settings.

A worker is one process that anonymises one study at a time; run several for more.

Exit codes: 0 stopped as asked, or the check is passed; 2 misconfigured; 1 anything else.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prichexy_worker import gate, pipeline
from prichexy_worker.announcer import Announcer
from prichexy_worker.app import Leaving, broker_tls, call_between_studies, create_app, work
from prichexy_worker.bounds import ProcessBounds, yield_memory_to_others
from prichexy_worker.chosen import Choice
from prichexy_worker.contract import SOFTWARE_VERSION, Available, WorkerAnnouncement
from prichexy_worker.current_model import LOOK_SECONDS, CurrentModel
from prichexy_worker.errors import Misconfigured
from prichexy_worker.export import create_destinations
from prichexy_worker.header.options import Option
from prichexy_worker.logs import JsonFormatter, configure_logging
from prichexy_worker.monitor import Monitor
from prichexy_worker.monitor_server import serving
from prichexy_worker.orthanc_client import connect
from prichexy_worker.orthanc_source import OrthancSource
from prichexy_worker.pipeline import Tools
from prichexy_worker.project import read_project
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.reporting import PluginReporter
from prichexy_worker.retry import RetryPolicy
from prichexy_worker.risk import Tolerated
from prichexy_worker.settings import Ingest, Settings, load_settings
from prichexy_worker.study import process_study
from prichexy_worker.target_settings import told_targets
from prichexy_worker.tasks import register
from prichexy_worker.text import TextFinder

if TYPE_CHECKING:
    import pyorthanc

    from prichexy_worker.contract import ModelInfo, StudyMessage
    from prichexy_worker.engine import Engine
    from prichexy_worker.study import Outcome

__all__ = ["announcement", "check", "load_tools", "main", "read_usable", "run"]

_LOG: Final = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker until it is told to stop, or only check that it could; gives the exit code."""
    parser = argparse.ArgumentParser(prog="prichexy_worker", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--check",
        action="store_true",
        help="read the settings, load key and model, say in JSON what was found, and stop",
    )
    options = parser.parse_args(arguments)
    configure_logging()
    try:
        settings = load_settings()
        own = settings.of_process(os.getpid())
        if settings.log.format == "json":
            configure_logging(formatter=JsonFormatter(own.worker_id))
        return check(settings) if options.check else run(own)
    except Misconfigured as error:
        sys.stderr.write(f"prichexy_worker: {error}\n")
        return 2


def check(settings: Settings) -> int:
    """Write, as JSON, who this worker would be. Nobody is asked, nothing is stored.

    Raises Misconfigured when the worker could not start.
    """
    targets = settings.export_targets()
    create_destinations(targets)
    _connect(settings.ingest)
    broker_tls(settings.broker)
    tools, engine = load_tools(settings)
    found = announcement(settings, engine).to_json()
    found["targets"] = {name: target.kind for name, target in targets.items()}
    found["key_id"] = tools.pseudonyms.key_id
    found["profile"] = tools.profile.to_json()
    sys.stdout.write(json.dumps(found, indent=2, sort_keys=True) + "\n")
    return 0


def run(settings: Settings) -> int:
    """Work until SIGTERM or SIGINT, which let the study under way come to its end, or go back.

    Raises Misconfigured when the worker cannot start.
    """
    # The memory of a process that crashes holds patients' data: it must not become a file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    yield_memory_to_others()
    destinations = create_destinations(settings.export_targets())
    orthanc = _connect(settings.ingest)
    source, reporter = OrthancSource(orthanc), PluginReporter(orthanc)
    tools, engine = load_tools(settings)
    choice = Choice(
        settings.model.bundle, partial(_load_engine, settings), partial(read_usable, settings)
    )
    # A client of its own: the thread must not wait behind an image, nor an image behind it.
    heartbeat = Announcer(
        PluginReporter(_connect(settings.ingest)),
        announcement(settings, engine, choice.available()),
    )
    monitor = Monitor(
        longest=settings.broker.redelivery_seconds,
        wait_seconds=LOOK_SECONDS,
        heard=lambda: heartbeat.heard,
    )
    monitor.announced(announcement(settings, engine))

    def announce(engine: Engine) -> None:
        heartbeat.update(announcement(settings, engine, choice.available()))
        monitor.announced(announcement(settings, engine))

    model = CurrentModel(
        settings.model.bundle,
        tools,
        engine,
        load=partial(_load_engine, settings),
        announce=announce,
    )

    bounds = ProcessBounds()
    anonymize = bounds.of_each_image(pipeline.anonymize, settings.limits.image_seconds)

    def look() -> None:
        monitor.waits()
        model.look()

    def process(message: StudyMessage) -> Outcome:
        with bounds.within(settings.broker.attempt_seconds()), monitor.attempt() as attempt:
            outcome = process_study(
                message,
                source,
                destinations,
                reporter,
                model.tools(),
                worker_id=settings.worker_id,
                max_instances=settings.limits.instances,
                max_bytes=settings.limits.study_bytes,
                max_seconds=settings.broker.study_seconds(),
                withdrawal_seconds=settings.broker.withdrawal_seconds(),
                leave_by=leaving.by,
                anonymize=anonymize,
                choose=choice.tools,
            )
            attempt.ended(outcome)
        return outcome

    app = create_app(settings)
    leaving = Leaving(settings.limits.stop_seconds)
    register(app, process, RetryPolicy.below(settings.broker.redelivery_seconds))
    call_between_studies(app, look, LOOK_SECONDS)
    _LOG.info("worker %s, version %s", settings.worker_id, SOFTWARE_VERSION)
    _LOG.info("device %s: %s", engine.device, engine.device_reason)
    digest = tools.profile.digest
    _LOG.info("key %s, profile %s, SHA-256 %s", tools.pseudonyms.key_id, tools.profile.name, digest)
    first = engine.model
    _LOG.info("model %s, %s: %s", first.digest[:12], first.evidence, first.statement)
    with ExitStack() as stack:
        if settings.monitoring.port is not None:
            address = settings.monitoring.address
            port = stack.enter_context(serving(monitor, address, settings.monitoring.port))
            _LOG.info("monitoring at port %d of %s", port, address)
        heartbeat.start()
        stack.callback(heartbeat.stop)
        code = work(app, settings)
    _LOG.info("stopped")
    return code


def load_tools(settings: Settings) -> tuple[Tools, Engine]:
    """Give what every instance is anonymised with, and the generator in it once more.

    Raises Misconfigured.
    """
    gate.installed()
    project = read_project(settings.profile.file)
    pseudonyms = project.pseudonyms(Pseudonyms.from_key_file(settings.pseudonyms.key_file))
    if settings.pseudonyms.retired_key_files and Option.UIDS in project.profile.options:
        raise Misconfigured(
            "pseudonyms.retired_key_files: with the option uids a study keeps its UID under every "
            "key, so what was exported under a retired one cannot be told apart; remove it yourself"
        )
    retired = [Pseudonyms.from_key_file(file) for file in settings.pseudonyms.retired_key_files]
    engine = _load_engine(settings, settings.model.bundle)
    tools = Tools(
        engine=engine,
        pseudonyms=pseudonyms,
        text_finder=TextFinder(settings.model.threads),
        syntax=settings.output.syntax,
        profile=project.profile,
        masks=project.masks,
        retired=tuple(project.pseudonyms(key) for key in retired),
        picture_side=settings.pictures.side,
        tolerated=_tolerated(settings),
    )
    return tools, engine


def _load_engine(settings: Settings, bundle: Path) -> Engine:
    """Give the networks of this bundle on the device of the settings. Raises Misconfigured."""
    # Where training is installed as well, MONAI would import matplotlib: seconds more, and a cache
    # of fonts in this user's home. None stands for a module that is not there.
    sys.modules.setdefault("matplotlib", None)  # type: ignore[arg-type]
    # Seconds and 400 MB: after all that can be found wrong without it.
    from prichexy_worker.engine import Engine  # noqa: PLC0415

    engine = Engine.load(bundle, device=settings.model.device, threads=settings.model.threads)
    _tolerated(settings).check_judges(engine.judges)
    return engine


def _tolerated(settings: Settings) -> Tolerated:
    return Tolerated(settings.risk.recognised, settings.risk.finding_change)


def read_usable(settings: Settings, folder: Path) -> ModelInfo:
    """Give what a bundle says of its generator. Raises Misconfigured, as ``_load_engine`` would."""
    from prichexy_worker.engine import read_judges, read_model  # noqa: PLC0415 - as above

    _tolerated(settings).check_judges(read_judges(folder))
    return read_model(folder)


def announcement(
    settings: Settings, engine: Engine, models: tuple[Available, ...] = ()
) -> WorkerAnnouncement:
    """Say who this worker is, and which ``models`` it could use."""
    return WorkerAnnouncement(
        worker_id=settings.worker_id,
        software=SOFTWARE_VERSION,
        device=engine.device,
        device_reason=engine.device_reason,
        model=engine.model,
        queues=settings.broker.taken_queues(),
        targets=told_targets(settings.export_targets()),
        models=models,
    )


def _connect(ingest: Ingest) -> pyorthanc.Orthanc:
    return connect(ingest.url, ingest.user, ingest.secret(), ingest.ca_file, ingest.timeout)
