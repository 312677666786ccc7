"""What goes wrong with a store, each with what to do about it. No text names a patient."""

from __future__ import annotations

__all__ = ["Failed", "Moved", "Refused", "WrongUse"]


class Failed(Exception):
    """What was asked for cannot be done; the text says what failed and what to do."""


class Refused(Failed):
    """What was asked for would do harm; nothing was changed."""


class Moved(Refused):
    """The store is no longer what somebody saw when asking for a change."""


class WrongUse(Exception):
    """What was asked for makes no sense as it was asked; nothing was changed."""
