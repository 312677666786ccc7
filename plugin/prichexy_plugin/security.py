"""What the plugin adds to Orthanc's HTTP server in any case. Standard library only."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

__all__ = ["EXPLORER_LINK", "ROUTES", "allows", "is_own_origin", "user_of"]

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


def allows(_uri: str, *, method: int, headers: Mapping[str, str], **_rest: Any) -> bool:
    """Orthanc's incoming request filter: refuse what another site's page makes a browser send.

    A browser adds the user's cached Orthanc password to a form that any other site posts, so this
    covers all of Orthanc's addresses, not only the plugin's. Programs send no such header and
    pass. It only compares strings: Orthanc's own threads run it for every request.
    """
    return method == _GET or is_own_origin(headers)


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
    host = urlsplit(origin).netloc.lower()
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
