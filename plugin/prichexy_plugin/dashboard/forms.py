"""What people send from the pages: who may, and that it came from a page that was shown to them."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256
from typing import Final

from prichexy_plugin.dashboard.frame import Visit
from prichexy_plugin.dashboard.http import FORM, FormLimit
from prichexy_plugin.security import is_own_origin
from prichexy_plugin.trail import Clock

__all__ = ["Forms", "Refused", "TooLarge"]

_LASTS: Final = timedelta(hours=12)
_KEY_BYTES: Final = 32


class Refused(Exception):
    """The form does not come from a page that was shown to this user lately."""


class TooLarge(Exception):
    """More was sent than the form takes."""


class Forms:
    """Signs the forms of the pages and reads what comes back.

    A form carries a token that only this process can make, for one user and one purpose. Another
    site's page can make a browser send a form with the user's cached password, but cannot read the
    page that holds the token. Nothing is kept: after a restart of Orthanc a page has to be loaded
    again.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(_KEY_BYTES)

    def token(self, visit: Visit, purpose: str) -> str:
        """Give the token of a form for ``purpose`` on a page of ``visit``, good for 12 hours."""
        issued = int(self._clock().timestamp())
        return f"{issued}.{self._sign(visit, purpose, issued)}"

    def read(self, visit: Visit, purpose: str, limit: FormLimit = FORM) -> Mapping[str, str]:
        """Give the fields of the form that ``visit`` posts, within ``limit``.

        Raises Refused, TooLarge.
        """
        if visit.user is None or not is_own_origin(visit.request.headers):
            raise Refused
        if len(visit.request.body) > limit.size:
            raise TooLarge
        fields = visit.request.form(limit)
        issued, _, signature = fields.get("token", "").partition(".")
        if not (issued.isascii() and issued.isdigit() and len(issued) <= 12):
            raise Refused
        right = self._sign(visit, purpose, int(issued))
        age = self._clock().timestamp() - int(issued)
        same = hmac.compare_digest(signature.encode(), right.encode())
        if not same or age > _LASTS.total_seconds():
            raise Refused
        return fields

    def _sign(self, visit: Visit, purpose: str, issued: int) -> str:
        text = "\0".join((visit.user or "", purpose, str(issued)))
        return hmac.new(self._key, text.encode(), sha256).hexdigest()
