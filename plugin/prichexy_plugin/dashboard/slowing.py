"""Which requests count for a user's limits, and what stands there when they are used up."""

from __future__ import annotations

from dataclasses import replace

from prichexy_plugin.dashboard.frame import Visit, render
from prichexy_plugin.dashboard.http import Request, Response, json_response
from prichexy_plugin.limits import Kind

__all__ = ["kind_of", "slow_down"]


def kind_of(request: Request) -> Kind | None:
    """Say as what a request counts; None for what may be asked for as often as one likes."""
    if request.method != "GET":
        return Kind.CHANGE
    if request.path.endswith(".png"):
        return Kind.PICTURE
    searched = request.path == "/studies" and any(request.query.values())
    if searched or request.path.startswith(("/audit", "/orthanc/")):
        return Kind.SEARCH
    return None


def slow_down(visit: Visit, seconds: int, *, is_api: bool) -> Response:
    """Say that it was too much, and when there is more."""
    later = {"Retry-After": str(seconds)}
    if is_api:
        answer = json_response(429, {"error": f"too many requests; try again in {seconds} s"})
        return replace(answer, headers=later)
    page = render("slow.html", visit, seconds=seconds, changes=visit.request.method == "POST")
    return replace(page, status=429, headers=later)
