"""The page in place of one that cannot be shown: why not, and where to go on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from prichexy_plugin.dashboard.frame import Visit, render
from prichexy_plugin.dashboard.http import Response
from prichexy_plugin.security import Role

__all__ = ["dressed"]

_TITLES: Final[Mapping[int, str]] = {
    400: "That did not work",
    403: "This is not for you",
    404: "There is nothing here",
    405: "Not in this way",
    503: "Not now",
}
#: What only programs and other pages ask for.
_NO_PAGES: Final = re.compile(r"/static/.*|/metrics|.*\.(?:csv|jpg|png)")
#: Where a form about one study stands, without what it does.
_FORM: Final = re.compile(r"(/(?:desk|studies)/[0-9a-f]{32})/[a-z]+")


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
    page = render(
        "refused.html",
        visit,
        title=_TITLES[answer.status],
        sentence=sentence,
        back=form[1] if form is not None and answer.status == 400 else None,
        home=visit.role >= Role.VIEWER,
    )
    return replace(page, status=answer.status, headers=answer.headers)
