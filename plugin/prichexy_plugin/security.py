"""What the plugin adds to Orthanc's HTTP server in any case. Standard library only."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final
from urllib.parse import urlsplit

__all__ = [
    "ATTACHMENTS",
    "EXPLORER_LINK",
    "ROUTES",
    "Role",
    "Roles",
    "allows",
    "is_own_origin",
    "named_attachments",
    "named_changers",
    "named_user",
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
_PUT: Final = 3
_DELETE: Final = 4
#: contract.API_ROOT, which this module cannot import: it serves without the packages, too.
_API: Final = "/prichexy/api/v1"
_ID: Final = "[0-9a-f]{8}(?:-[0-9a-f]{8}){4}"
#: All that a worker asks of this Orthanc, by method.
_WORKER_MAY: Final = {
    _GET: re.compile(rf"/system|/studies/{_ID}(?:/instances)?|/instances/{_ID}/file|{_API}/health"),
    # No search of Orthanc's own: it would tell whether any patient is here.
    _POST: re.compile(f"{_API}/(?:reports|workers|pictures|doubts|images|patients)"),
}
#: All that whoever watches over the gateway asks, by GET.
_MONITOR_MAY: Final = re.compile(
    rf"/system|/tools/metrics-prometheus|/prichexy/metrics|{_API}/(?:health|ready)"
)
#: Every number that the plugin keeps a picture under, as an attachment of a study (pictures.py).
ATTACHMENTS: Final = range(0x5058, 0x5300)
#: Orthanc looks an attachment up by its resource's id, whatever level the address names.
_ATTACHMENT: Final = re.compile(r"/(?:patients|studies|series|instances)/[^/]+/attachments/([^/]+)")
#: The lists of Roles whose users may change something in Orthanc.
_CHANGE: Final = ("Operators", "Administrators")
#: Orthanc's own questions that are asked by POST; Orthanc Explorer needs them.
_ASKS: Final = frozenset({"/tools/find", "/tools/lookup", "/tools/count-resources"})


class Role(IntEnum):
    """What a user may do on the dashboard; each may do what those before it may."""

    NOBODY = 0  # nothing
    VIEWER = 1  # read what stands there about studies
    OPERATOR = 2  # act on studies, see pictures of originals and the audit trail
    ADMINISTRATOR = 3  # delete originals, read the settings


@dataclass(frozen=True, slots=True)
class Roles:
    """The role of each of Orthanc's users; ``named`` is None where the settings name none.

    Then every user who has logged in is an administrator: Orthanc itself lets each of its users
    delete all it holds.
    """

    named: Mapping[str, Role] | None = None

    def of(self, user: str | None) -> Role:
        """Give the user's role.

        Without a name nothing can be changed: the audit trail could not say by whom.
        """
        if self.named is None:
            return Role.VIEWER if user is None else Role.ADMINISTRATOR
        return Role.NOBODY if user is None else self.named.get(user, Role.NOBODY)


def named_user(configuration: str, key: str) -> str | None:
    """Read WorkerUser or MonitorUser from Orthanc's configuration, even where the rest is wrong.

    The filter has to know these users whatever else goes wrong, so nothing is raised here.
    """
    try:
        section = json.loads(configuration).get("PriCheXy", {})
        user = section.get(key)
    except (ValueError, AttributeError):
        return None
    return user.strip() if isinstance(user, str) else None


def named_changers(configuration: str) -> frozenset[str] | None:
    """Read who may change something in Orthanc, even where the rest is wrong.

    They are Roles.Operators and Roles.Administrators of Orthanc's configuration, so nobody where
    Roles cannot be read; None where there are no Roles, and everybody may.
    """
    try:
        roles = json.loads(configuration).get("PriCheXy", {}).get("Roles")
    except (ValueError, AttributeError):
        return None
    if roles is None:
        return None
    lists = [roles.get(name) for name in _CHANGE] if isinstance(roles, dict) else []
    users = [user for one in lists if isinstance(one, list) for user in one]
    return frozenset(user.strip() for user in users if isinstance(user, str))


def named_attachments(configuration: str) -> frozenset[str]:
    """Read which names Orthanc's configuration gives to numbers of ours (UserContentType)."""
    try:
        names = json.loads(configuration).get("UserContentType", {})
        return frozenset(name for name, number in names.items() if _is_ours(_first(number)))
    except (ValueError, AttributeError):
        return frozenset()


def allows(
    uri: str,
    *,
    method: int,
    headers: Mapping[str, str],
    worker_user: str | None = None,
    monitor_user: str | None = None,
    changers: frozenset[str] | None = None,
    attachments: frozenset[str] = frozenset(),
    **_rest: Any,
) -> bool:
    """Orthanc's incoming request filter: what the request's user and origin may do.

    ``worker_user`` may read what workers read and post what they report, nothing else: a worker
    runs on another machine, and its password must not open the originals' whole archive.
    ``monitor_user`` may read how the gateway is doing, and nothing of a study.
    Of all others only ``changers``, where it is given, may change something, in all of Orthanc:
    viewers and whoever stands in no list of roles read, whoever has no name, too.

    Nobody may put or delete what the plugin keeps as attachments: people decide over these
    pictures. ``attachments`` are names that stand for their numbers. The plugin's own calls do not
    come through here.

    Of everybody, what another site's page makes a browser send is refused. A browser adds the
    user's cached Orthanc password to a form that any other site posts, so this covers all of
    Orthanc's addresses, not only the plugin's. Programs send no such header and pass.
    Orthanc takes ``GET ADDRESS?_method=DELETE`` for a DELETE, and PUT likewise, so a mere link can
    be one: what a browser sends as such must say that a page of this server sent it.
    It only compares strings: Orthanc's own threads run it for every request.
    """
    if method != _GET and not is_own_origin(headers):
        return False
    if method in (_PUT, _DELETE) and _may_be_a_link(headers):
        return False
    if method in (_PUT, _DELETE):
        attachment = _ATTACHMENT.match(uri)
        if attachment is not None and (attachment[1] in attachments or _is_ours(attachment[1])):
            return False
    user = user_of(headers)
    if user is not None and user == monitor_user:
        return method == _GET and _MONITOR_MAY.fullmatch(uri) is not None
    if user is not None and user == worker_user:
        may = _WORKER_MAY.get(method)
        return may is not None and may.fullmatch(uri) is not None
    if changers is None or user in changers or method == _GET:
        return True
    return method == _POST and uri in _ASKS


def is_own_origin(headers: Mapping[str, str]) -> bool:
    """Say whether a request comes from a program or from a page of this same server.

    ``headers`` have lower-case names. ``Sec-Fetch-Site`` cannot be set by a page but is only sent
    over HTTPS and to localhost; ``Origin`` comes with every POST of a browser. A proxy in front
    must pass ``Host`` on for the latter. "none" is an address that was typed or came from another
    program, a mail perhaps: no page asked for it.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        host = urlsplit(origin).netloc.lower()
    except ValueError:
        return False
    return bool(host) and host == headers.get("host", "").lower()


def _first(content_type: object) -> object:
    """Give the number of a UserContentType, which may be a list of it and a MIME type."""
    return content_type[0] if isinstance(content_type, list) and content_type else content_type


def _is_ours(attachment: object) -> bool:
    """Say whether this is the number of a picture, in any spelling that Orthanc reads."""
    try:
        return int(str(attachment)) in ATTACHMENTS
    except ValueError:
        return False


def _may_be_a_link(headers: Mapping[str, str]) -> bool:
    """Say whether a browser sent this without saying which page asked for it.

    Over plain HTTP browsers tell nothing of where a link came from. Of a real PUT or DELETE they
    tell the origin. Programs either call themselves something else or can send ``Origin``.
    """
    if "sec-fetch-site" in headers or "origin" in headers:
        return False
    languages = headers.get("accept-language", "*").strip()
    return languages != "*" or headers.get("user-agent", "").startswith("Mozilla/")


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
