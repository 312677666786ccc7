"""Which address is answered by what, and who may ask."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final
from urllib.parse import urlencode

from sqlalchemy.exc import SQLAlchemyError

from prichexy_plugin.dashboard import actions, api, desk, images, models, studies
from prichexy_plugin.dashboard.audit import AuditFiles, audit_page, chain_page
from prichexy_plugin.dashboard.backfilling import backfill_part, take_backfill
from prichexy_plugin.dashboard.forms import Forms, Refused, TooLarge
from prichexy_plugin.dashboard.frame import Visit, static_file
from prichexy_plugin.dashboard.from_orthanc import FROM_ORTHANC, go_to_study
from prichexy_plugin.dashboard.http import (
    BadQuery,
    Request,
    Response,
    go_to,
    json_response,
    not_allowed,
    plain,
)
from prichexy_plugin.dashboard.many import many_page, take_many
from prichexy_plugin.dashboard.metrics import Metrics, metrics_response
from prichexy_plugin.dashboard.overview import overview_page
from prichexy_plugin.dashboard.pausing import pauses_page, take_pause
from prichexy_plugin.dashboard.refusing import dressed, failed
from prichexy_plugin.dashboard.rerun import rerun_page, take_rerun
from prichexy_plugin.dashboard.rules import DryRuns, rules_page
from prichexy_plugin.dashboard.settings_page import settings_page
from prichexy_plugin.dashboard.slowing import kind_of, slow_down
from prichexy_plugin.dashboard.text_pictures import answer_picture, answer_whole_picture
from prichexy_plugin.dashboard.told import Told
from prichexy_plugin.dashboard.verifying import Verifications
from prichexy_plugin.dashboard.view import Gateway, Overview, overview_of
from prichexy_plugin.disk import Disk
from prichexy_plugin.effective import Setting
from prichexy_plugin.history import History
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.limits import DEFAULTS, Kind, Limiter, Limits
from prichexy_plugin.ownership import OthersLedger
from prichexy_plugin.pictures import Pictures
from prichexy_plugin.security import Role, Roles, user_of
from prichexy_plugin.studies import Studies
from prichexy_plugin.trail import Clock
from prichexy_plugin.warming import Warming
from prichexy_store.store import ModelStore
from prichexy_worker.contract import DEFAULT_QUEUE

__all__ = ["Site"]

_STUDY: Final = re.compile(r"/studies/([0-9a-f]{32})")
_ACTION: Final = re.compile(r"/studies/([0-9a-f]{32})/([a-z]{1,20})")
_PICTURE: Final = re.compile(r"/studies/([0-9a-f]{32})/(text|whole)-([1-9][0-9]?)\.png")
_OF_A_STUDY: Final = (_STUDY, _ACTION, _PICTURE, images.ADDRESS)
_DESK: Final = re.compile(r"/desk(?:/([0-9a-f]{32})(?:/([a-z]{1,20}))?)?")
_MANY: Final = re.compile("/studies/(retry|reject)")
_TOO_DEEP: Final = re.compile(r"/((?:app|prichexy)(?:/[a-zA-Z0-9._-]+)*)")


class Site:
    """Answers everything under /prichexy; ``gateway`` is None with a wrong configuration.

    Pages are for whom ``roles`` gives one; ``worker_user`` and ``monitor_user`` have none.
    """

    def __init__(
        self,
        gateway: Gateway | None,
        *,
        problems: tuple[str, ...],
        worker_user: str | None,
        clock: Clock,
        monitor_user: str | None = None,
        pictures: Pictures | None = None,
        studies: Studies | None = None,
        roles: Roles | None = None,
        disk: Callable[[], Disk | None] = lambda: None,
        settings: tuple[Setting, ...] = (),
        own_queue: str = DEFAULT_QUEUE,
        limits: Limits = DEFAULTS,
        store: ModelStore | None = None,
        log: Callable[[str], None] = lambda _sentence: None,
    ) -> None:
        self._log = log
        self._gateway = gateway
        self._pictures = pictures
        self._studies = studies
        self._problems = problems
        self._worker_user = worker_user
        self._monitor_user = monitor_user
        self._clock = clock
        self._roles = Roles() if roles is None else roles
        self._disk = disk
        self._settings = settings
        self._forms = Forms(clock)
        self._own_queue = own_queue
        self._limiter = Limiter(limits, clock)
        self._dry_runs = DryRuns(self._forms, studies)
        self._audit_files = AuditFiles()
        self._told = Told(clock)
        self._verifications = Verifications(clock)
        self._models = models.Models(store, self._forms)
        #: Counts from the first question on.
        self._metrics: Metrics | None = None
        self._history = History()
        self._warming = Warming(self._history, lambda: self._ledger, clock)
        self._api = api.Api(
            gateway,
            visit_of=self._visit,
            overview=self._overview,
            worker_user=worker_user,
            monitor_user=monitor_user,
            pictures=pictures,
            studies=studies,
        )

    def start(self) -> None:
        """Make ready, in a thread, what the first page would cost most; Orthanc has started."""
        if self._gateway is not None:
            self._warming.start()

    def stop(self) -> None:
        """Let go of what pages and ``start`` have begun; Orthanc ends."""
        self._warming.stop()
        self._verifications.stop()

    def answer(self, request: Request) -> Response:
        """Answer one request; what the database raises becomes 503, and any other error 500."""
        is_api = request.path == api.ADDRESS or request.path.startswith(f"{api.ADDRESS}/")
        if not is_api:
            request = self._told.believed(request, user_of(request.headers))
        visit = self._visit(request)
        limited = visit.user is None or visit.user != self._worker_user
        wait = self._too_soon(visit, is_api=is_api) if limited else 0
        if wait:
            return slow_down(visit, wait, is_api=is_api)
        answer = self._answer(request, is_api=is_api)
        if not is_api:
            answer = dressed(answer, visit)
        self._told.lead(visit, answer)
        if limited and answer.status == 403:
            wait = self._limiter.take(visit.user, Kind.REFUSAL)
            if wait:
                return slow_down(visit, wait, is_api=is_api)
        return answer

    def _too_soon(self, visit: Visit, *, is_api: bool) -> int:
        """Take what the request costs; give the seconds until its user may have it, or 0."""
        request = visit.request
        if is_api and request.method == "GET":
            # Programs wait for studies by asking again and again.
            return 0
        kind = kind_of(replace(request, path=request.path.rstrip("/")))
        if kind is Kind.CHANGE:
            wait = self._limiter.look(visit.user, Kind.REFUSAL)
            if wait:
                return wait
        return 0 if kind is None else self._limiter.take(visit.user, kind)

    def _answer(self, request: Request, *, is_api: bool) -> Response:
        try:
            return self._api.answer(request) if is_api else self._page(request)
        except BadQuery as error:
            return _refuse(400, f"{error} is not valid", is_api=is_api)
        except TooLarge:
            return plain(
                400, "Nothing was changed. More was sent than this form takes: shorten it."
            )
        except SQLAlchemyError as error:
            what = f"the ledger does not work ({type(error).__name__})"
            return _refuse(503, what, is_api=is_api)
        except OthersLedger as error:
            return _refuse(503, f"the ledger {error}", is_api=is_api)
        except Exception as error:  # noqa: BLE001 - Orthanc would log its text: it may hold a value
            self._log(f"PriCheXy: {type(error).__name__} while answering a request.")
            return json_response(500, {"error": "internal error"}) if is_api else failed(request)

    def _visit(self, request: Request) -> Visit:
        user = user_of(request.headers)
        service = user is not None and user in (self._worker_user, self._monitor_user)
        role = Role.NOBODY if service else self._roles.of(user)
        return Visit(request, user, role, self._clock())

    def _is_monitor(self, user: str | None) -> bool:
        return user is not None and user == self._monitor_user

    def _overview(self) -> Overview:
        return overview_of(self._gateway, self._problems, self._clock())

    @property
    def _ledger(self) -> Ledger | None:
        return None if self._gateway is None else self._gateway.ledger

    def _page(self, request: Request) -> Response:
        request = replace(request, path=request.path.rstrip("/"))
        if request.path.startswith("/static/"):
            return static_file(request.path.removeprefix("/static/"))
        visit = self._visit(request)
        if request.path == "/metrics" and self._may_watch(visit):
            return self._answer_metrics(request)
        if visit.role < Role.VIEWER:
            return plain(
                403, "PriCheXy.Roles of Orthanc's configuration gives this user no role here."
            )
        of_models = models.ADDRESS.fullmatch(request.path)
        if of_models is not None and request.method in ("GET", "POST"):
            try:
                return self._models.answer(of_models, self._overview(), self._ledger, visit)
            except Refused:
                return _unseen()
        if request.method == "POST":
            return self._take(visit)
        if request.method != "GET":
            return not_allowed("GET")
        if request.path == "/backfill":
            return not_allowed("POST")
        if request.path == "":
            overview = self._overview()
            part = backfill_part(overview, self._forms, visit)
            return overview_page(
                overview, self._ledger, self._disk(), visit, backfill=part, history=self._history
            )
        if request.path == "/studies":
            return studies.studies_page(self._overview(), self._ledger, visit)
        many = _MANY.fullmatch(request.path)
        if many is not None:
            return self._many(many[1], visit)
        if request.path == "/rules":
            return rules_page(self._overview(), self._ledger, self._forms, visit)
        if request.path == "/pauses":
            return pauses_page(self._overview(), self._ledger, self._forms, visit)
        if request.path in ("/audit", "/audit.csv", "/audit/chain"):
            return self._audit(visit)
        if request.path == "/settings":
            if visit.role < Role.ADMINISTRATOR:
                return _not_for(Role.ADMINISTRATOR)
            return settings_page(self._settings, self._overview(), visit)
        orthancs = FROM_ORTHANC.fullmatch(request.path)
        if orthancs is not None and self._ledger is not None:
            return go_to_study(self._ledger, orthancs[1], orthancs[2])
        on_desk = _DESK.fullmatch(request.path)
        if on_desk is not None:
            return self._desk(on_desk, visit)
        one = self._page_of_a_study(visit)
        if one is not None:
            return one
        deep = _TOO_DEEP.fullmatch(request.path)
        if deep is not None:
            # The page was opened with a "/" at its end, so its relative links start one level
            # too deep.
            query = f"?{urlencode(request.query)}" if request.query else ""
            return go_to("../" * request.path.count("/") + deep[1] + query, status=302)
        return plain(404, "There is no such page.")

    def _may_watch(self, visit: Visit) -> bool:
        watches = self._is_monitor(visit.user)
        return watches or visit.may(Role.VIEWER)

    def _answer_metrics(self, request: Request) -> Response:
        if request.method != "GET":
            return not_allowed("GET")
        feed = None if self._gateway is None else self._gateway.feed
        if self._metrics is None and feed is not None:
            self._metrics = Metrics(feed)
        return metrics_response(self._overview(), self._disk(), self._metrics)

    def _audit(self, visit: Visit) -> Response:
        if visit.role < Role.OPERATOR:
            return plain(403, "The audit trail names people: it is for operators.")
        if self._ledger is None:
            return plain(503, "The ledger is not open.")
        if visit.request.path == "/audit":
            return audit_page(self._ledger, visit)
        if visit.request.path == "/audit/chain":
            return chain_page(self._ledger, self._verifications, visit)
        return self._audit_files.answer(self._ledger, visit)

    def _page_of_a_study(self, visit: Visit) -> Response | None:
        """Answer what is about one study; None when the address is about something else."""
        path, ledger = visit.request.path, self._ledger
        match = next(filter(None, (one.fullmatch(path) for one in _OF_A_STUDY)), None)
        if match is None:
            return None
        if ledger is None:
            return plain(503, "The ledger is not open.")
        if match.re in (_PICTURE, images.ADDRESS):
            if visit.role < Role.OPERATOR:
                return plain(403, "These pictures show patients' data: they are for operators.")
            if self._pictures is None:
                return plain(404, "There is no such picture.")
            if match.re is images.ADDRESS:
                return images.answer_image(ledger, self._pictures, match, visit.actor)
            answer = answer_picture if match[2] == "text" else answer_whole_picture
            return answer(ledger, self._pictures, match[1], int(match[3]), visit.actor)
        study = ledger.study(match[1])
        if study is None:
            return plain(404, "There is no such study in the ledger.")
        if match.re is _STUDY:
            return studies.study_page(study, ledger, visit, self._pictures)
        if match[2] == "rerun":
            if not visit.may(Role.ADMINISTRATOR):
                return _not_for(Role.ADMINISTRATOR)
            return rerun_page(study, ledger, self._forms, visit)
        action = actions.ACTIONS.get(match[2])
        if action is None:
            return plain(404, "There is no such page.")
        if not visit.may(action.role):
            return _not_for(action.role)
        return actions.confirm_page(action, study, self._forms, visit)

    def _desk(self, match: re.Match[str], visit: Visit) -> Response:
        if not visit.may(Role.OPERATOR):
            return _not_for(Role.OPERATOR)
        if self._ledger is None:
            return plain(503, "The ledger is not open.")
        job, deed = match.groups()
        if visit.request.method == "POST":
            hands = actions.Hands(self._ledger, self._studies, _nothing)
            return desk.take(job or "", deed or "", hands, self._forms, visit)
        if deed is not None:
            return not_allowed("POST")
        return desk.desk_page(self._ledger, self._forms, visit, job)

    def _many(self, deed: str, visit: Visit) -> Response:
        if not visit.may(Role.OPERATOR):
            return _not_for(Role.OPERATOR)
        if self._ledger is None:
            return plain(503, "The ledger is not open.")
        answer = take_many if visit.request.method == "POST" else many_page
        return answer(actions.ACTIONS[deed], self._ledger, self._forms, visit)

    def _take(self, visit: Visit) -> Response:
        """Take a form in."""
        path, ledger = visit.request.path, self._ledger
        on_desk = _DESK.fullmatch(path)
        match = _ACTION.fullmatch(path)
        action = None if match is None else actions.ACTIONS.get(match[2])
        try:
            if path == "/backfill":
                return take_backfill(self._gateway, self._forms, visit)
            many = _MANY.fullmatch(path)
            if many is not None:
                return self._many(many[1], visit)
            if path == "/rules":
                return self._dry_runs.take(self._overview(), ledger, self._own_queue, visit)
            if path == "/pauses":
                return take_pause(ledger, self._forms, visit)
            if on_desk is not None:
                return self._desk(on_desk, visit)
            rerun = match is not None and match[2] == "rerun"
            if match is None or (action is None and not rerun):
                return not_allowed("GET")
            role = Role.ADMINISTRATOR if action is None else action.role
            if not visit.may(role):
                return _not_for(role)
            if ledger is None:
                return plain(503, "The ledger is not open.")
            study = ledger.study(match[1])
            if study is None:
                return plain(404, "There is no such study in the ledger.")
            if action is None:
                return take_rerun(study, ledger, self._forms, visit)
            tidy = _nothing if self._gateway is None else self._gateway.tidy
            hands = actions.Hands(ledger, self._studies, tidy)
            return actions.take(action, study, hands, self._forms, visit)
        except Refused:
            return _unseen()


def _nothing() -> None:
    """Stand for what a gateway that does not run cannot do."""


def _unseen() -> Response:
    return plain(
        403,
        "Nothing was changed. This form was not shown to you, or it is too old: Orthanc "
        "was started again since, or 12 hours have passed. Open its page anew.",
    )


def _refuse(status: int, what: str, *, is_api: bool) -> Response:
    if is_api:
        return json_response(status, {"error": what})
    return plain(status, f"{what[0].upper()}{what[1:]}.")


def _not_for(role: Role) -> Response:
    return plain(403, f"This is for users with the role {role.name.lower()}.")
