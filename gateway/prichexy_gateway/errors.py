"""Errors of the command line, each with what to do about it."""

from __future__ import annotations

from prichexy_worker.errors import Misconfigured

__all__ = ["Failed", "Interrupted", "Misconfigured", "Refused"]


class Failed(Exception):
    """The command cannot go on; the text says what failed and what to do. No patient's data."""


class Refused(Failed):
    """What was asked for would do harm; nothing was changed."""


class Interrupted(Exception):
    """Somebody asked the command to stop (Ctrl-C or SIGTERM)."""
