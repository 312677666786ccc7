"""One HTTP exchange as plain values, and the headers that every answer carries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import parse_qs, unquote_plus

from prichexy_plugin.host import Output, send_status
from prichexy_worker.contract import State

__all__ = [
    "FORM",
    "FRAMING",
    "LARGE_FORM",
    "LIVE",
    "REPORT",
    "SCRIPTED",
    "BadQuery",
    "FormLimit",
    "Request",
    "Response",
    "deliver",
    "go_to",
    "json_response",
    "not_allowed",
    "plain",
    "read_query",
]

#: Nothing is loaded from elsewhere, nothing runs inline, no other site may frame a page, and no
#: cache keeps one.
_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: Of a page with scripts, all of them files of ours: for ``Response.headers``.
SCRIPTED: Final[Mapping[str, str]] = {"Content-Security-Policy": f"{_POLICY}; script-src 'self'"}
#: Of a page with the script that asks for the page itself again.
LIVE: Final[Mapping[str, str]] = {
    "Content-Security-Policy": f"{_POLICY}; script-src 'self'; connect-src 'self'"
}
#: Of a page that frames one of ours.
FRAMING: Final[Mapping[str, str]] = {"Content-Security-Policy": f"{_POLICY}; frame-src 'self'"}
#: Of a page that somebody else made: in a sandbox, with no script, no form, nothing from a server.
REPORT: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Frame-Options": "SAMEORIGIN",
}
_HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    # With "no-referrer" browsers would send "Origin: null" with the page's own forms.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


#: Orthanc has a list of the statuses that it sends, and closes the connection for another one.
#: "Service Unavailable" with Retry-After says the same as "Too Many Requests", and "Bad Request"
#: with Allow the same as "Method Not Allowed", which Orthanc sends without a page.
_SENT_INSTEAD: Final[Mapping[int, int]] = {405: 400, 429: 503}
_NOT_ALLOWED: Final = 405
_DIGITS: Final = 10
_FORM_MIME: Final = "application/x-www-form-urlencoded"


class FormLimit(NamedTuple):
    """What a posted form may be: bytes in all, and fields."""

    size: int
    fields: int


#: A form of ours is far smaller, but for some.
FORM: Final = FormLimit(4096, 16)
#: Five fields for each box of each image.
LARGE_FORM: Final = FormLimit(512 * 1024, 16 * 1024)


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

    @property
    def root(self) -> str:
        """Give the way from this page's address to where "prichexy" begins, behind any prefix."""
        return "../" * self.path.rstrip("/").count("/")

    def form(self, limit: FormLimit = FORM) -> Mapping[str, str]:
        """Read what a form posted, each name once; empty when it is none, or beyond ``limit``."""
        mime = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if mime != _FORM_MIME or len(self.body) > limit.size:
            return {}
        try:
            fields = parse_qs(self.body.decode("ascii"), max_num_fields=limit.fields)
        except ValueError:
            return {}
        return {key: values[0] for key, values in fields.items() if len(values) == 1}

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


def read_query(raw: Mapping[str, str]) -> dict[str, str]:
    """Read the parameters of an address: Orthanc hands them over as they stand there, encoded."""
    return {unquote_plus(key): unquote_plus(value) for key, value in raw.items()}


def json_response(status: int, value: object) -> Response:
    """Answer with ``value`` as JSON."""
    return Response(status, "application/json", json.dumps(value))


def not_allowed(method: str) -> Response:
    """Refuse a request whose address takes ``method`` alone."""
    return Response(
        405, "application/json", '{"error": "method not allowed"}', headers={"Allow": method}
    )


def plain(status: int, sentence: str) -> Response:
    """Answer with one sentence for a person."""
    return Response(status, "text/plain; charset=utf-8", f"{sentence}\n")


def go_to(address: str, *, status: int = 303) -> Response:
    """Send the browser elsewhere; 303 after a form, so that a reload does not post again."""
    return Response(status, "text/plain", "", headers={"Location": address})


def deliver(response: Response, output: Output) -> None:
    """Give ``response`` to Orthanc."""
    if response.status == _NOT_ALLOWED and not response.mime.startswith("text/html"):
        # Orthanc sends this one in a way of its own, and refuses every other.
        output.SendMethodNotAllowed(response.headers["Allow"])
        return
    for key, value in {**_HEADERS, **response.headers}.items():
        output.SetHttpHeader(key, value)
    if response.status == 200:
        output.AnswerBuffer(response.body, response.mime)
    else:
        output.SetHttpHeader("Content-Type", response.mime)
        body = response.body
        status = _SENT_INSTEAD.get(response.status, response.status)
        send_status(output, status, body if isinstance(body, str) else body.decode())
