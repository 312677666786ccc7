"""Reads the dashboard's pages as a browser of one user does, and fills its forms in."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

from prichexy_plugin.backfill import Backfill
from prichexy_plugin.dashboard.http import Request, Response
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.event_feed import EventFeed
from prichexy_plugin.intake import Rule
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.relay import BrokerState
from prichexy_plugin.studies import StudiesUnavailable

__all__ = ["FORM", "FakeGateway", "Page", "Reader", "filled_in", "login"]

#: What browsers call a form that they post.
FORM = "application/x-www-form-urlencoded"


def login(user: str) -> dict[str, str]:
    """Give the header that Orthanc lets through when ``user`` has logged in."""
    token = base64.b64encode(f"{user}:password".encode()).decode()
    return {"authorization": f"Basic {token}"}


class FakeGateway:
    """A gateway whose parts a test sets."""

    def __init__(self, ledger: Ledger | None) -> None:
        self.ledger = ledger
        self.ledger_state = "ok"
        self.feed: EventFeed | None = None
        self.broker_state = BrokerState(True, "0 waiting for a worker", None)
        self.troubles: tuple[str, ...] = ()
        self.targets: frozenset[str] = frozenset()
        self.queues: frozenset[str] = frozenset()
        self.rules: tuple[Rule, ...] = ()
        #: Whether Orthanc answers the plugin.
        self.available = True
        self.tidied = 0

    def tidy(self) -> None:
        """Count that it was asked for."""
        self.tidied += 1

    def start_backfill(self, per_minute: int, by: str) -> Backfill:
        """Begin one over seven studies. Raises StudiesUnavailable."""
        if self.ledger is None or not self.available:
            raise StudiesUnavailable
        return self.ledger.start_backfill(per_minute=per_minute, total=7, by=by)


def filled_in(page: str, chosen: Mapping[str, str]) -> dict[str, str]:
    """Fill in the first form that posts and whose hidden fields go with ``chosen``."""
    forms = re.findall(r'<form [^>]*method="post".*?</form>', page, re.DOTALL)
    for form in forms:
        fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form))
        if all(fields.get(key, value) == value for key, value in chosen.items()):
            return {**fields, **chosen}
    raise AssertionError(f"no such form among {len(forms)}")


class Page(HTMLParser):
    """Collects what a reader of a page sees, where its links go, and its form."""

    def __init__(self, response: Response, *, status: int = 200) -> None:
        super().__init__()
        assert response.status == status, response.body
        assert response.mime == "text/html; charset=utf-8"
        self.links: list[str] = []
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        #: Where links with a relation lead, by it.
        self.related: dict[str, str] = {}
        #: What the form that posts would send.
        self.fields: dict[str, str] = {}
        self._texts: list[str] = []
        self._posts = False
        #: Whether the next words go on in those before, as in a name within a sentence.
        self._goes_on = False
        assert isinstance(response.body, str)
        self.feed(response.body)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._goes_on = tag == "bdi"
        self.attributes.update(name for name, _ in attrs)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]
        given = dict(attrs)
        if tag == "a" and "rel" in given:
            self.related[given["rel"] or ""] = given.get("href") or ""
        if tag == "form":
            self._posts = given.get("method") == "post"
        elif tag == "input" and self._posts:
            self.fields[given.get("name") or ""] = given.get("value") or ""

    def handle_endtag(self, tag: str) -> None:
        self._goes_on = tag == "bdi"

    def handle_data(self, data: str) -> None:
        if self._goes_on and self._texts:
            self._texts[-1] += data
        else:
            self._texts.append(data)
        self._goes_on = False

    @property
    def text(self) -> str:
        """Give the words, each space a single one."""
        return re.sub(r"\s+", " ", " ".join(self._texts))


class Reader:
    """One user before the site; without ``user`` a request that names nobody."""

    def __init__(self, site: Site, user: str | None = None) -> None:
        self._site = site
        self._headers = {} if user is None else login(user)

    def ask(self, path: str = "", **query: str) -> Response:
        """Open an address below /prichexy."""
        return self._site.answer(Request("GET", path, query=query, headers=self._headers))

    def page(self, path: str = "", **query: str) -> Page:
        """Open a page that must be there."""
        return Page(self.ask(path, **query))

    def follow(self, path: str, link: str) -> Page:
        """Open what ``link`` on the page of ``path`` leads to, as a browser resolves it."""
        parts = urlsplit(urljoin(f"http://gateway/behind/prichexy{path}", link))
        assert parts.path.startswith("/behind/prichexy")
        return self.page(
            parts.path.removeprefix("/behind/prichexy"), **dict(parse_qsl(parts.query))
        )

    def post(
        self, path: str, fields: Mapping[str, str] | bytes, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Send a form."""
        body = fields if isinstance(fields, bytes) else urlencode(fields).encode()
        whole = {**self._headers, "content-type": FORM, **(headers or {})}
        return self._site.answer(Request("POST", path, headers=whole, body=body))
