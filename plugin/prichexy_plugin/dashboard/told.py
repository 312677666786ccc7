"""What a page says of a deed after its form, and that it was this user's form which said so."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import parse_qsl, urljoin, urlsplit

from prichexy_plugin.dashboard.frame import Visit
from prichexy_plugin.dashboard.http import Request, Response
from prichexy_plugin.trail import Clock

__all__ = ["Told"]

#: The parameters of an address by which a page says that something was done.
_WORDS: Final = ("note", "done")
#: So long a page may be loaded again and says the same.
_LASTS: Final = timedelta(minutes=10)
_MOST: Final = 1000
#: Of a redirect only the path and the parameters count.
_ANYWHERE: Final = "http://gateway/prichexy"

#: Whose page, which, and the two words.
_Key = tuple[str | None, str, str, str]


class Told:
    """Remembers where forms have led whom, so that nobody can say by a link that a thing was done.

    Any thread may call it. After a restart of Orthanc a page says nothing of what was done before.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._led: OrderedDict[_Key, datetime] = OrderedDict()

    def lead(self, visit: Visit, answer: Response) -> None:
        """Take down where ``answer`` sends the user to be told what was done."""
        location = answer.headers.get("Location", "")
        if not any(f"{word}=" in location for word in _WORDS):
            return
        parts = urlsplit(urljoin(f"{_ANYWHERE}{visit.request.path.rstrip('/')}", location))
        path = parts.path.partition("/prichexy")[2]
        key = _key(visit.user, path, dict(parse_qsl(parts.query)))
        with self._lock:
            self._led[key] = self._clock()
            self._led.move_to_end(key)
            while len(self._led) > _MOST:
                self._led.popitem(last=False)

    def believed(self, request: Request, user: str | None) -> Request:
        """Give the request without words of a deed that no form has led this user to."""
        if not any(word in request.query for word in _WORDS):
            return request
        led = self._led.get(_key(user, request.path.rstrip("/"), request.query))
        if led is not None and self._clock() - led <= _LASTS:
            return request
        query = {key: value for key, value in request.query.items() if key not in _WORDS}
        return replace(request, query=query)


def _key(user: str | None, path: str, query: Mapping[str, str]) -> _Key:
    note, done = (query.get(word, "") for word in _WORDS)
    return user, path, note, done
