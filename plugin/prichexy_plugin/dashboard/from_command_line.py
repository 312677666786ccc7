"""What the command line posts: backfills, and what it did to models, keys and backups."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from prichexy_plugin.backfill import MAX_RATE
from prichexy_plugin.dashboard import in_json
from prichexy_plugin.dashboard.backfilling import steer_backfill
from prichexy_plugin.dashboard.from_workers import BODY_LIMIT
from prichexy_plugin.dashboard.http import Request, Response, json_response
from prichexy_plugin.dashboard.view import Gateway
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.model_changes import MOST_CHANGES, read_changes
from prichexy_plugin.outside_deeds import MOST_DEEDS, read_deeds
from prichexy_worker.contract import REQUEST_HEADER, ContractError

__all__ = ["answer_backfill", "answer_deeds", "answer_model_changes"]

_SMALL_BODY: Final = 256


def answer_model_changes(ledger: Ledger, request: Request, actor: str) -> Response:
    """Take what the command line tells of its model store, as ``actor``; 403 as above."""
    return _told(
        request, MOST_CHANGES, lambda data: ledger.note_model_changes(read_changes(data), actor)
    )


def answer_deeds(ledger: Ledger, request: Request, actor: str) -> Response:
    """Take what the command line tells of what else was done, as ``actor``; 403 as above."""
    return _told(request, MOST_DEEDS, lambda data: ledger.note_deeds(read_deeds(data), actor))


def _told(request: Request, most: int, note: Callable[[Any], int]) -> Response:
    """Hand the parsed body to ``note``, which says how much of it was new."""
    if REQUEST_HEADER.lower() not in request.headers:
        return json_response(403, {"error": f"the header {REQUEST_HEADER} is missing"})
    if len(request.body) > BODY_LIMIT or request.body.count(b"[") + request.body.count(b"{") > (
        most + 2
    ):
        return json_response(413, {"error": "the body is too large"})
    try:
        told = note(json.loads(request.body))
    except ContractError as error:
        return json_response(422, {"error": str(error)})
    except ValueError:
        return json_response(422, {"error": "the body is not JSON"})
    return json_response(200, {"told": told})


def answer_backfill(gateway: Gateway, ledger: Ledger, request: Request, user: str) -> Response:
    """Begin or stop a backfill for ``user``, who may; 403 without the header, as above."""
    if REQUEST_HEADER.lower() not in request.headers:
        return json_response(403, {"error": f"the header {REQUEST_HEADER} is missing"})
    try:
        data = json.loads(request.body) if len(request.body) <= _SMALL_BODY else None
    except ValueError:
        data = None
    rate = data.get("per_minute") if isinstance(data, dict) else None
    if isinstance(rate, bool) or not isinstance(rate, int) or not 0 <= rate <= MAX_RATE:
        return json_response(422, {"error": f"per_minute is not a number from 0 to {MAX_RATE}"})
    if not steer_backfill(gateway, ledger, rate, user):
        return json_response(503, {"error": "Orthanc does not answer the plugin"})
    now = ledger.backfill()
    return json_response(200, {} if now is None else in_json.backfill(now, names_people=True))
