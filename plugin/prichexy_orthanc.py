"""The script that Orthanc's Python plugin loads (``"PythonScript"``): registers the callbacks.

An exception in here would keep Orthanc from starting, and then no radiograph could be received.
So whatever goes wrong while loading is said on the dashboard's address, and Orthanc serves on.
"""

from typing import Any

import orthanc
from prichexy_plugin import explorer, fallback, security

plugin: Any
try:
    from prichexy_plugin import wiring

    plugin = wiring.build(orthanc)
except Exception as problem:  # noqa: BLE001 - the reason stands in the docstring
    plugin = fallback.build(orthanc, problem)


WORKER_USER = security.named_user(orthanc.GetConfiguration(), "WorkerUser")
MONITOR_USER = security.named_user(orthanc.GetConfiguration(), "MonitorUser")
CHANGERS = security.named_changers(orthanc.GetConfiguration())
ATTACHMENTS = security.named_attachments(orthanc.GetConfiguration())


# Plain functions on purpose: Orthanc lets go of its callbacks after Python has ended, and with a
# bound method or a closure that crashed each stop of Orthanc 1.12.7 with plugin 5.0.
def answer(output: orthanc.RestOutput, uri: str, **request: Any) -> None:
    """Answer what is asked under /prichexy."""
    plugin.on_request(output, uri, **request)


def admit(uri: str, **request: Any) -> bool:
    """Say whether Orthanc may take a request at all; the audit trail hears of some."""
    allowed = security.allows(
        uri,
        worker_user=WORKER_USER,
        monitor_user=MONITOR_USER,
        changers=CHANGERS,
        attachments=ATTACHMENTS,
        **request,
    )
    if allowed:
        plugin.on_admitted(uri, **request)
    return allowed


def notice(change: int, _level: int, _resource: str) -> None:
    """Hear of a change; returns at once."""
    plugin.on_change(change)


orthanc.RegisterIncomingHttpRequestFilter(admit)
orthanc.RegisterRestCallback(security.ROUTES, answer)
orthanc.RegisterOnChangeCallback(notice)
# Once: Orthanc keeps the last one only.
orthanc.ExtendOrthancExplorer(security.EXPLORER_LINK + explorer.STUDY_PART)
