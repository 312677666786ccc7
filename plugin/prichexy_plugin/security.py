"""What the plugin adds to Orthanc's HTTP server in any case. Standard library only."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

__all__ = [
    "EXPLORER_LINK",
    "ROUTES",
    "allows",
    "is_own_origin",
    "named_worker_user",
    "user_of",
]

#: What Orthanc routes to the plugin.
ROUTES: Final = "/prichexy(/.*)?"
#: Adds a button to the start page of the old Orthanc Explorer, before jQuery Mobile dresses it.
EXPLORER_LINK: Final = """
$('#lookup').live('pagebeforecreate', function () {
  $('<a>').attr({
    id: 'prichexy-link', href: '../prichexy', rel: 'external',
    'data-role': 'button', 'data-icon': 'grid'
  }).text('PriCheXy gateway').insertBefore($('#lookup-form'));
});
"""
#: Orthanc numbers the methods (``orthanc.HttpMethod``): 1 is GET, the only one that is harmless.
_GET: Final = 1
_POST: Final = 2
#: contract.API_ROOT, which this module cannot import: it serves without the packages, too.
_API: Final = "/prichexy/api/v1"
_ID: Final = "[0-9a-f]{8}(?:-[0-9a-f]{8}){4}"
#: All that a worker asks of this Orthanc, by method.
_WORKER_MAY: Final = {
    _GET: re.compile(rf"/system|/studies/{_ID}(?:/instances)?|/instances/{_ID}/file|{_API}/health"),
    # Who has a UID, as ids of this Orthanc: to see that one study is not of two patients.
    _POST: re.compile(f"/tools/lookup|{_API}/(?:reports|workers|pictures)"),
}


def named_worker_user(configuration: str) -> str | None:
    """Read WorkerUser from Orthanc's configuration, even where the rest of the section is wrong.

    The filter has to know this user whatever else goes wrong, so nothing is raised here.
    """
    try:
        section = json.loads(configuration).get("PriCheXy", {})
        user = section.get("WorkerUser")
    except (ValueError, AttributeError):
        return None
    return user.strip() if isinstance(user, str) else None


def allows(
    uri: str,
    *,
    method: int,
    headers: Mapping[str, str],
    worker_user: str | None = None,
    **_rest: Any,
) -> bool:
    """Orthanc's incoming request filter: what the request's user and origin may do.

    ``worker_user`` may read what workers read and post what they report, nothing else: a worker
    runs on another machine, and its password must not open the originals' whole archive.

    Of everybody, what another site's page makes a browser send is refused. A browser adds the
    user's cached Orthanc password to a form that any other site posts, so this covers all of
    Orthanc's addresses, not only the plugin's. Programs send no such header and pass.
    It only compares strings: Orthanc's own threads run it for every request.
    """
    if method != _GET and not is_own_origin(headers):
        return False
    if worker_user is None or user_of(headers) != worker_user:
        return True
    may = _WORKER_MAY.get(method)
    return may is not None and may.fullmatch(uri) is not None


def is_own_origin(headers: Mapping[str, str]) -> bool:
    """Say whether a request comes from a program or from a page of this same server.

    ``headers`` have lower-case names. ``Sec-Fetch-Site`` cannot be set by a page but is only sent
    over HTTPS and to localhost; ``Origin`` comes with every POST of a browser. A proxy in front
    must pass ``Host`` on for the latter.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        host = urlsplit(origin).netloc.lower()
    except ValueError:
        return False
    return bool(host) and host == headers.get("host", "").lower()


def user_of(headers: Mapping[str, str]) -> str | None:
    """Name the Orthanc user of a request that Orthanc let through, None when there is none.

    Orthanc has checked the password before any callback runs, but passes no user name on.
    """
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(value, validate=True).decode()
    except ValueError:
        return None
    user, colon, _ = text.partition(":")
    return user if colon else None
