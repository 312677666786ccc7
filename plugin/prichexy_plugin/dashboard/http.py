"""One HTTP exchange as plain values, and the headers that every answer carries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from prichexy_plugin.host import Output, send_status
from prichexy_worker.contract import State

__all__ = ["BadQuery", "Request", "Response", "deliver", "json_response"]

#: Nothing is loaded from elsewhere, nothing runs inline, no other site may frame a page, and no
#: cache keeps one.
_HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    # With "no-referrer" browsers would send "Origin: null" with the page's own forms.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


_DIGITS: Final = 10


class BadQuery(ValueError):
    """A parameter of the address cannot be read; the text names it."""


@dataclass(frozen=True, slots=True)
class Request:
    """``path`` begins behind /prichexy; the names of ``headers`` are in lower case."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def number(self, key: str, *, default: int, minimum: int, maximum: int = 2**31 - 1) -> int:
        """Read a whole number from the address. Raises BadQuery."""
        text = self.query.get(key, "")
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
            raise BadQuery(key)
        value = int(text)
        if not minimum <= value <= maximum:
            raise BadQuery(key)
        return value

    def state(self) -> State | None:
        """Read the state that a list is narrowed to. Raises BadQuery."""
        text = self.query.get("state", "")
        if text and text not in set(State):
            raise BadQuery("state")
        return State(text) if text else None


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: text, or the bytes of a picture."""

    status: int
    mime: str
    body: str | bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def json_response(status: int, value: object) -> Response:
    """Answer with ``value`` as JSON."""
    return Response(status, "application/json", json.dumps(value))


def deliver(response: Response, output: Output) -> None:
    """Give ``response`` to Orthanc."""
    for key, value in {**_HEADERS, **response.headers}.items():
        output.SetHttpHeader(key, value)
    if response.status == 200:
        output.AnswerBuffer(response.body, response.mime)
    else:
        output.SetHttpHeader("Content-Type", response.mime)
        body = response.body
        send_status(output, response.status, body if isinstance(body, str) else body.decode())
