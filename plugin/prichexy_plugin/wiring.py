"""Joins the plugin's parts to each other and to Orthanc."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from prichexy_plugin.broker import RedisBroker
from prichexy_plugin.chain import Deed
from prichexy_plugin.dashboard.http import Request, Response, deliver, read_query
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.disk import look_at_disk
from prichexy_plugin.effective import effective_settings, read_source_files
from prichexy_plugin.host import Host, Output
from prichexy_plugin.outside_deeds import removal
from prichexy_plugin.ownership import number_of
from prichexy_plugin.people import person
from prichexy_plugin.pictures import OrthancPictures
from prichexy_plugin.runtime import Runtime
from prichexy_plugin.section import SettingsError
from prichexy_plugin.security import user_of
from prichexy_plugin.settings import read_settings
from prichexy_plugin.studies import OrthancStudies
from prichexy_store.store import ModelStore

__all__ = ["Plugin", "build"]

#: Orthanc's own setting.
_KEEPS_MD5: Final = "StoreMD5ForAttachments"


class Plugin:
    """The gateway's side of this Orthanc; ``runtime`` is None with a wrong configuration."""

    def __init__(self, orthanc: Host, runtime: Runtime | None, site: Site) -> None:
        self._orthanc = orthanc
        self._runtime = runtime
        self._site = site

    def on_change(self, change: int) -> None:
        """Hear of a change; returns at once, except at Orthanc's own end."""
        if self._runtime is None:
            return
        if change == self._orthanc.ChangeType.STABLE_STUDY:
            self._runtime.wake()
        elif change == self._orthanc.ChangeType.ORTHANC_STARTED:
            self._runtime.start()
            self._site.start()
        elif change == self._orthanc.ChangeType.ORTHANC_STOPPED:
            self._site.stop()
            self._runtime.stop()

    def on_admitted(self, uri: str, **raw: Any) -> None:
        """Have the audit trail say who is about to remove originals; never raises.

        Orthanc's threads come here with every request: all but removals cost two comparisons.
        """
        if raw["method"] == self._orthanc.HttpMethod.GET:
            return
        details = removal(uri, raw["method"])
        if details is None:
            return
        ledger = None if self._runtime is None else self._runtime.ledger
        who = person(user_of(raw["headers"]) or "(none)")
        trouble = "not open"
        if ledger is not None:
            try:
                ledger.record(Deed.ACTION, by=who, details=details)
            except Exception as error:  # noqa: BLE001 - what a filter raises would refuse the request
                trouble = type(error).__name__
            else:
                return
        self._orthanc.LogError(
            f"PriCheXy: the audit trail has no line of a removal by {who}: the ledger: {trouble}."
        )

    def on_request(self, output: Output, uri: str, **raw: Any) -> None:
        """Answer what is asked under /prichexy; never raises."""
        request = Request(
            method=raw["method"],
            path=uri.removeprefix("/prichexy"),
            query=read_query(raw.get("get", {})),
            headers=raw["headers"],
            body=raw.get("body") or b"",
        )
        try:
            response = self._site.answer(request)
        except Exception as error:  # noqa: BLE001 - Orthanc would log its text: it may hold a value
            self._orthanc.LogError(f"PriCheXy: {type(error).__name__} while answering a request.")
            response = Response(500, "text/plain; charset=utf-8", "internal error\n")
        deliver(response, output)


def build(orthanc: Host) -> Plugin:
    """Put the plugin together; nothing runs before Orthanc says ORTHANC_STARTED.

    With a wrong configuration nothing is taken in or handed on; the dashboard and ``/health`` say
    which key is wrong, and Orthanc serves as without the plugin.
    """
    configuration = json.loads(orthanc.GetConfiguration())
    try:
        settings = read_settings(configuration, _folder(orthanc))
    except SettingsError as error:
        for problem in error.problems:
            orthanc.LogError(f"PriCheXy does not run: {problem}")
        return Plugin(
            orthanc, None, Site(None, problems=error.problems, worker_user=None, clock=_now)
        )
    if configuration.get(_KEEPS_MD5, True) is not True:
        orthanc.LogWarning(
            f"PriCheXy: Orthanc keeps no MD5 of its files ({_KEEPS_MD5}). An image that comes in "
            "the place of another is known by its size and the second in which it came alone."
        )
    pictures = OrthancPictures(orthanc)
    studies = OrthancStudies(orthanc)
    runtime = Runtime(
        settings,
        studies,
        RedisBroker(
            settings.broker_url,
            settings.broker_password,
            settings.queue,
            user=settings.broker_user,
            tls=settings.broker_tls,
        ),
        pictures=pictures,
        number=partial(number_of, orthanc),
        clock=_now,
        log=orthanc.LogWarning,
    )
    site = Site(
        runtime,
        problems=(),
        worker_user=settings.worker_user,
        monitor_user=settings.monitor_user,
        clock=_now,
        pictures=pictures,
        studies=studies,
        roles=settings.roles,
        own_queue=settings.queue,
        limits=settings.limits,
        log=orthanc.LogError,
        disk=partial(look_at_disk, settings.storage),
        store=None if settings.model_store is None else ModelStore(settings.model_store),
        settings=effective_settings(
            configuration, read_source_files(Path(orthanc.GetConfigurationPath()))
        ),
    )
    return Plugin(orthanc, runtime, site)


def _now() -> datetime:
    return datetime.now(UTC)


def _folder(orthanc: Host) -> Path:
    """Give the folder that Orthanc starts relative paths of its configuration at."""
    path = Path(orthanc.GetConfigurationPath())
    return path if path.is_dir() else path.parent
