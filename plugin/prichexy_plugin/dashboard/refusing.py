"""The page in place of one that cannot be shown: why not, and where to go on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from prichexy_plugin.dashboard.frame import Visit, render
from prichexy_plugin.dashboard.http import Request, Response, plain
from prichexy_plugin.security import Role

__all__ = ["dressed", "failed"]

_TITLES: Final[Mapping[int, str]] = {
    400: "That did not work",
    403: "This is not for you",
    404: "There is nothing here",
    405: "Not in this way",
    500: "Something went wrong",
    503: "Not now",
}
#: What only programs and other pages ask for.
_NO_PAGES: Final = re.compile(r"/static/.*|/metrics|.*\.(?:csv|jpg|png)")
#: Where a form about one study stands.
_FORM: Final = re.compile(r"/(desk|studies)/([0-9a-f]{32})/[a-z]+")
#: With which answers to a form the page leads back to it, or to the study's time line.
_TO_THE_FORM: Final = 400
_TO_THE_STUDY: Final = 500


def dressed(answer: Response, visit: Visit) -> Response:
    """Give a refusal of one sentence as a page with ways on; give any other answer as it is."""
    bare = answer.mime.startswith(("text/plain", "application/json"))
    path = visit.request.path.rstrip("/")
    if not bare or answer.status not in _TITLES or _NO_PAGES.fullmatch(path):
        return answer
    sentence = str(answer.body).strip()
    if answer.status == 405:
        takes = answer.headers.get("Allow")
        sentence = "This address takes no form." if takes == "GET" else "This address is no page."
    form = _FORM.fullmatch(path)
    back = None
    if form is not None and answer.status == _TO_THE_FORM:
        back = f"/{form[1]}/{form[2]}"
    elif form is not None and answer.status == _TO_THE_STUDY:
        back = f"/studies/{form[2]}"
    page = render(
        "refused.html",
        visit,
        title=_TITLES[answer.status],
        sentence=sentence,
        back=back,
        home=visit.role >= Role.VIEWER,
    )
    return replace(page, status=answer.status, headers=answer.headers)


def failed(request: Request) -> Response:
    """Say that an error came which nobody foresaw, and what is known of what was asked for."""
    told = "There was an error that nobody foresaw; Orthanc's log names its kind."
    if request.method == "GET":
        return plain(500, f"{told} Try again; if it stays, tell who administers this Orthanc.")
    about_one = _FORM.fullmatch(request.path.rstrip("/"))
    where = "study's time line" if about_one is not None else "audit trail"
    return plain(500, f"{told} It is not known whether this was done: look at the {where}.")
