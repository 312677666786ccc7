"""What a study has to wait for that waits to be handed out: open circuits, and pauses. Pure."""

from __future__ import annotations

from collections.abc import Collection

from prichexy_plugin.intake import Rank
from prichexy_plugin.pauses import Pause, holds
from prichexy_worker.retry import Blame, Circuit

__all__ = ["concerns"]


def concerns(stop: Circuit | Pause, targets: Collection[str], rank: int) -> bool:
    """Say whether a study that goes to ``targets`` and has a Rank waits because of ``stop``.

    What is to be taken back waits for no pause, nor for what makes and judges results: it makes
    none, and would not show it to work either.
    """
    if isinstance(stop, Pause):
        return holds([stop], targets, rank)
    makes_none = rank == Rank.WITHDRAWAL and stop.blame is Blame.RESULT
    return stop.concerns(targets) and not makes_none
