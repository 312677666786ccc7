"""Errors of the command line ``prichexy-train``, each with what to do about it."""

from __future__ import annotations

__all__ = ["Damaged", "Diverged", "Failed", "InUse", "Misconfigured"]


class Failed(Exception):
    """The command cannot go on; the text says what failed and what to do. Exit code 1."""


class Misconfigured(Failed):
    """What was asked for does not fit together; the text names file and key. Exit code 2."""


class InUse(Failed):
    """Another process works in this folder; nothing was changed."""


class Damaged(Failed):
    """A file is not what was once written there; the text names it and says what to do."""


class Diverged(Failed):
    """A loss or measure is no longer a finite number: the run cannot go on from here."""
