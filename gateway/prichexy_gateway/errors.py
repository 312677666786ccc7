"""Errors of the command line, each with what to do about it."""

from __future__ import annotations

from prichexy_store.errors import Failed, Refused, WrongUse
from prichexy_worker.errors import Misconfigured

__all__ = ["Failed", "Interrupted", "Misconfigured", "Refused", "WrongUse"]


class Interrupted(Exception):
    """Somebody asked the command to stop (Ctrl-C or SIGTERM)."""
