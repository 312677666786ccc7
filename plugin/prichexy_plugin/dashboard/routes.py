"""Which address is answered by what."""

from __future__ import annotations

import re
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from prichexy_plugin.backfill import MAX_RATE
from prichexy_plugin.dashboard import api, pages
from prichexy_plugin.dashboard.forms import Forms, Refused
from prichexy_plugin.dashboard.http import BadQuery, Request, Response, json_response
from prichexy_plugin.dashboard.view import Gateway, overview_of
from prichexy_plugin.ledger import Clock, Ledger
from prichexy_plugin.pictures import Pictures
from prichexy_worker.contract import API_ROOT

__all__ = ["Site"]

_API: Final = API_ROOT.removeprefix("/prichexy")
_JOB: Final = re.compile(re.escape(_API) + r"/studies/([0-9a-f]{32})")
_PICTURE: Final = re.compile(r"/studies/([0-9a-f]{32})/text-([1-9][0-9]?)\.png")
_TOO_DEEP: Final = re.compile(r"/(app|prichexy)/[a-zA-Z0-9._/-]*")


class Site:
    """Answers everything under /prichexy; ``gateway`` is None with a wrong configuration."""

    def __init__(
        self,
        gateway: Gateway | None,
        *,
        problems: tuple[str, ...],
        worker_user: str | None,
        clock: Clock,
        pictures: Pictures | None = None,
    ) -> None:
        self._gateway = gateway
        self._pictures = pictures
        self._problems = problems
        self._worker_user = worker_user
        self._clock = clock
        self._forms = Forms()

    def answer(self, request: Request) -> Response:
        """Answer one request; what the database raises becomes 503."""
        try:
            if request.path == _API or request.path.startswith(f"{_API}/"):
                return self._api(request)
            return self._page(request)
        except BadQuery as error:
            return json_response(400, {"error": f"{error} is not valid"})
        except SQLAlchemyError as error:
            return json_response(
                503, {"error": f"the ledger does not work ({type(error).__name__})"}
            )

    def _page(self, request: Request) -> Response:
        if request.path == "/backfill":
            return self._backfill(request)
        if request.method != "GET":
            return _not_allowed("GET")
        if request.path in ("", "/"):
            overview = overview_of(self._gateway, self._problems, self._clock())
            token = self._forms.token(request)
            return pages.studies_page(overview, self._gateway, request, token=token)
        picture = _PICTURE.fullmatch(request.path)
        ledger = None if self._gateway is None else self._gateway.ledger
        if picture is not None and ledger is not None and self._pictures is not None:
            return api.answer_picture(ledger, self._pictures, picture[1], int(picture[2]))
        if request.path.startswith("/static/"):
            return pages.static_file(request.path.removeprefix("/static/"))
        if _TOO_DEEP.fullmatch(request.path):
            # The page was opened as /prichexy/, so its relative links start one level too deep.
            up = "../" * request.path.count("/")
            return Response(
                302, "text/plain", "", headers={"Location": up + request.path.removeprefix("/")}
            )
        return Response(404, "text/plain; charset=utf-8", "There is no such page.\n")

    def _backfill(self, request: Request) -> Response:
        """Take the dashboard's button; then show the page again, which says what came of it."""
        if request.method != "POST":
            return _not_allowed("POST")
        try:
            user, fields = self._forms.read(request)
        except Refused:
            text = (
                "This page was not shown to you, or Orthanc was started again since: reload it.\n"
            )
            return Response(403, "text/plain; charset=utf-8", text)
        ledger = None if self._gateway is None else self._gateway.ledger
        rate = fields.get("per_minute", "")
        known = rate.isascii() and rate.isdigit() and len(rate) <= 5 and int(rate) <= MAX_RATE
        if user == self._worker_user or not known:
            return Response(403, "text/plain; charset=utf-8", "This cannot be done.\n")
        if (
            self._gateway is None
            or ledger is None
            or not api.steer_backfill(self._gateway, ledger, int(rate), user)
        ):
            text = "The gateway cannot do this now; its page says why.\n"
            return Response(503, "text/plain; charset=utf-8", text)
        return Response(303, "text/plain", "", headers={"Location": "../prichexy"})

    def _api(self, request: Request) -> Response:
        path = request.path.removeprefix(_API)
        if path == "/health":
            if request.method != "GET":
                return _not_allowed("GET")
            return api.answer_health(overview_of(self._gateway, self._problems, self._clock()))
        ledger = None if self._gateway is None else self._gateway.ledger
        if ledger is None:
            return json_response(503, {"error": "the ledger is not open", "see": "/health"})
        return self._api_of(ledger, path, request)

    def _api_of(self, ledger: Ledger, path: str, request: Request) -> Response:
        if path == "/backfill" and self._gateway is not None:
            if request.method != "POST":
                return _not_allowed("POST")
            return api.answer_backfill(self._gateway, ledger, request, self._worker_user)
        takes = {"/reports": api.take_report(ledger), "/workers": api.take_announcement(ledger)}
        if self._pictures is not None:
            takes["/pictures"] = api.take_pictures(ledger, self._pictures)
        if path in takes:
            if request.method != "POST":
                return _not_allowed("POST")
            return api.answer_post(request, self._worker_user, takes[path])
        job = _JOB.fullmatch(request.path)
        if path != "/studies" and job is None:
            return json_response(404, {"error": "no such address"})
        if request.method != "GET":
            return _not_allowed("GET")
        if job is not None:
            return api.answer_study(ledger, job.group(1))
        return api.answer_studies(ledger, request)


def _not_allowed(method: str) -> Response:
    return Response(
        405, "application/json", '{"error": "method not allowed"}', headers={"Allow": method}
    )
