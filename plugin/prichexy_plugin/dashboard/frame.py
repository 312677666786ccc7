"""What surrounds every page: who looks at it, the navigation, the time. It needs no script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from prichexy_plugin.dashboard.http import Request, Response, plain
from prichexy_plugin.people import person
from prichexy_plugin.security import Role
from prichexy_plugin.upright import upright
from prichexy_worker.contract import SOFTWARE_VERSION

__all__ = ["Visit", "render", "static_file"]

_HTML: Final = "text/html; charset=utf-8"
_STATIC: Final[Mapping[str, str]] = {
    "dashboard.css": "text/css",
    "icon.svg": "image/svg+xml",
    "controls.js": "text/javascript",
    "desk.js": "text/javascript",
    "images.css": "text/css",
    "images.js": "text/javascript",
    "live.js": "text/javascript",
    "models.css": "text/css",
}
#: Below /prichexy, with the role that may see it.
_SECTIONS: Final = (
    ("", "Overview", Role.VIEWER),
    ("/studies", "Studies", Role.VIEWER),
    ("/desk", "Quarantine", Role.OPERATOR),
    ("/rules", "Rules", Role.VIEWER),
    ("/pauses", "Pauses", Role.VIEWER),
    ("/models", "Models", Role.VIEWER),
    ("/audit", "Audit", Role.OPERATOR),
    ("/settings", "Settings", Role.ADMINISTRATOR),
)


@dataclass(frozen=True, slots=True)
class Visit:
    """Who asks for what, and when. ``user`` is None where Orthanc let a nameless request in."""

    request: Request
    user: str | None
    role: Role
    at: datetime

    @property
    def actor(self) -> str:
        """Give the user's name as the audit trail has it."""
        return person(self.user or "(none)")

    def may(self, role: Role) -> bool:
        """Say whether this user may change what ``role`` may; one without a name never."""
        return self.user is not None and self.role >= role


@dataclass(frozen=True, slots=True)
class _Section:
    path: str
    title: str
    current: bool


def render(template: str, visit: Visit, **values: Any) -> Response:
    """Give a page of ``template``; all that it shows of ``values`` is escaped.

    So is what nobody would see, such as what turns the order of the words around it round.
    """
    sections = [
        _Section(path, title, current=_belongs(visit.request.path, path))
        for path, title, role in _SECTIONS
        if visit.role >= role
    ]
    body = (
        _environment()
        .get_template(template)
        .render(
            root=visit.request.root,
            sections=sections,
            visit=visit,
            role=visit.role.name.lower(),
            version=SOFTWARE_VERSION,
            now=visit.at.strftime("%Y-%m-%d %H:%M:%S UTC"),
            **values,
        )
    )
    return Response(200, _HTML, body)


def static_file(name: str) -> Response:
    """Give a style sheet or an icon; only those that are named here."""
    mime = _STATIC.get(name)
    if mime is None:
        return plain(404, "There is no such file.")
    file = resources.files("prichexy_plugin.dashboard") / "static" / name
    return Response(200, mime, file.read_text(encoding="utf-8"))


def _belongs(path: str, section: str) -> bool:
    path = path.rstrip("/")
    return path == section or bool(section and path.startswith(f"{section}/"))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("prichexy_plugin.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_seen,
    )
    environment.filters["moment"] = _moment
    environment.filters["bdi"] = _isolated
    return environment


def _seen(value: Any) -> Any:
    """Give what a page shows of a value; one that is HTML already (``e``) stays as it is."""
    return upright(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _isolated(name: str) -> Markup:
    """Give a name that others chose so that its direction stays within it."""
    return Markup("<bdi>{}</bdi>").format(upright(name))


def _moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S UTC")
