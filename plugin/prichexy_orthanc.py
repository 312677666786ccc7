"""The script that Orthanc's Python plugin loads (``"PythonScript"``): registers the callbacks.

An exception in here would keep Orthanc from starting, and then no radiograph could be received.
So whatever goes wrong while loading is said on the dashboard's address, and Orthanc serves on.
"""

from typing import Any

import orthanc
from prichexy_plugin import fallback, security

plugin: Any
try:
    from prichexy_plugin import wiring

    plugin = wiring.build(orthanc)
except Exception as problem:  # noqa: BLE001 - the reason stands in the docstring
    plugin = fallback.build(orthanc, problem)


WORKER_USER = security.named_worker_user(orthanc.GetConfiguration())


# Plain functions on purpose: Orthanc lets go of its callbacks after Python has ended, and with a
# bound method or a closure that crashed each stop of Orthanc 1.12.7 with plugin 5.0.
def answer(output: orthanc.RestOutput, uri: str, **request: Any) -> None:
    """Answer what is asked under /prichexy."""
    plugin.on_request(output, uri, **request)


def admit(uri: str, **request: Any) -> bool:
    """Say whether Orthanc may take a request at all."""
    return security.allows(uri, worker_user=WORKER_USER, **request)


def notice(change: int, _level: int, _resource: str) -> None:
    """Hear of a change; returns at once."""
    plugin.on_change(change)


orthanc.RegisterIncomingHttpRequestFilter(admit)
orthanc.RegisterRestCallback(security.ROUTES, answer)
orthanc.RegisterOnChangeCallback(notice)
orthanc.ExtendOrthancExplorer(security.EXPLORER_LINK)
