"""What people send from the dashboard's buttons: who may, and what it says."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final
from urllib.parse import parse_qs

from prichexy_plugin.dashboard.http import Request
from prichexy_plugin.security import is_own_origin, user_of

__all__ = ["Forms", "Refused"]

_LIMIT: Final = 4096
_MIME: Final = "application/x-www-form-urlencoded"


class Refused(Exception):
    """The form does not come from a page that was shown to this user."""


class Forms:
    """Signs the forms of the pages and reads what comes back.

    A form carries a token that only this process can make, for one user. Another site's page can
    make a browser send a form with the user's cached password, but cannot read the token. After a
    restart of Orthanc a page has to be loaded again.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def token(self, request: Request) -> str:
        """Give the token for a page that is shown to the user of ``request``."""
        user = user_of(request.headers) or ""
        return hmac.new(self._key, user.encode(), hashlib.sha256).hexdigest()

    def read(self, request: Request) -> tuple[str, dict[str, str]]:
        """Give the user and the fields of a form. Raises Refused."""
        user = user_of(request.headers)
        mime = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if user is None or mime != _MIME or len(request.body) > _LIMIT:
            raise Refused
        try:
            found = parse_qs(request.body.decode("ascii"), max_num_fields=16)
        except ValueError:
            raise Refused from None
        fields = {name: values[-1] for name, values in found.items()}
        token = fields.pop("token", "")
        same = hmac.compare_digest(token.encode(), self.token(request).encode())
        if not same or not is_own_origin(request.headers):
            raise Refused
        return user, fields
