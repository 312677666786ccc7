"""Joins the plugin's parts to each other and to Orthanc."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prichexy_plugin.broker import RedisBroker
from prichexy_plugin.dashboard.http import Request, Response, deliver
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.host import Host, Output
from prichexy_plugin.pictures import OrthancPictures
from prichexy_plugin.runtime import Runtime
from prichexy_plugin.settings import SettingsError, read_settings
from prichexy_plugin.studies import OrthancStudies

__all__ = ["Plugin", "build"]


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
        elif change == self._orthanc.ChangeType.ORTHANC_STOPPED:
            self._runtime.stop()

    def on_request(self, output: Output, uri: str, **raw: Any) -> None:
        """Answer what is asked under /prichexy; never raises."""
        request = Request(
            method=raw["method"],
            path=uri.removeprefix("/prichexy"),
            query=raw.get("get", {}),
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
    try:
        settings = read_settings(json.loads(orthanc.GetConfiguration()), _folder(orthanc))
    except SettingsError as error:
        for problem in error.problems:
            orthanc.LogError(f"PriCheXy does not run: {problem}")
        return Plugin(
            orthanc, None, Site(None, problems=error.problems, worker_user=None, clock=_now)
        )
    runtime = Runtime(
        settings,
        OrthancStudies(orthanc),
        RedisBroker(settings.broker_url, settings.broker_password, settings.queue),
        clock=_now,
        log=orthanc.LogWarning,
    )
    site = Site(
        runtime,
        problems=(),
        worker_user=settings.worker_user,
        clock=_now,
        pictures=OrthancPictures(orthanc),
    )
    return Plugin(orthanc, runtime, site)


def _now() -> datetime:
    return datetime.now(UTC)


def _folder(orthanc: Host) -> Path:
    """Give the folder that Orthanc starts relative paths of its configuration at."""
    path = Path(orthanc.GetConfigurationPath())
    return path if path.is_dir() else path.parent
