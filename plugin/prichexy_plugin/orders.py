"""What people have decided over a study, besides that it goes its way once more. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from prichexy_worker.contract import Box, Errand, Looked, Reason, State

__all__ = ["NONE", "InDoubt", "Orders", "boxes_of", "numbers_of"]


@dataclass(frozen=True, slots=True)
class InDoubt:
    """An image that a worker is in doubt about, as the ledger knows it: no pixel of it.

    ``number`` counts the study's images in doubt from 1; the rest is as in
    ``contract.ImageInDoubt``.
    """

    number: int
    digest: str
    rows: int
    columns: int
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker is told with the study's next message.

    ``looked`` are decisions over single images; each holds for its image as long as that is the
    same, in later revisions, too. ``errand`` and ``reason``, why an export is to be withdrawn, and
    ``bundle`` and ``strength``, with which model and how much a study is to be deformed, hold for
    one revision (``contract.StudyMessage``).
    """

    looked: tuple[Looked, ...] = ()
    errand: Errand = Errand.ANONYMIZE
    reason: Reason | None = None
    bundle: str = ""
    strength: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """Give what the ledger keeps; ``from_json`` reads it. Nothing for no orders."""
        data: dict[str, Any] = {}
        if self.looked:
            data["looked"] = [one.to_json() for one in self.looked]
        if self.errand is not Errand.ANONYMIZE:
            data["errand"] = self.errand.value
        if self.reason is not None:
            data["reason"] = self.reason.value
        if self.bundle:
            data["bundle"] = self.bundle
        if self.strength != 1:
            data["strength"] = self.strength
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote. Raises ContractError, ValueError for anything else."""
        reason = data.get("reason")
        return cls(
            looked=tuple(Looked.from_json(one) for one in data.get("looked", ())),
            errand=Errand(data.get("errand", Errand.ANONYMIZE.value)),
            reason=None if reason is None else Reason(reason),
            bundle=str(data.get("bundle", "")),
            strength=float(data.get("strength", 1)),
        )

    def lasting(self) -> Orders:
        """Give what goes on to hold when something else comes in for the study."""
        return Orders(looked=self.looked)

    def withdraw(self, state: State) -> bool:
        """Say whether the export of a study in this state is being taken back.

        That may wait, be under way or have failed. Only its end, or a person, changes it.
        """
        return self.errand is Errand.WITHDRAW and state is not State.REJECTED

    def decided(self, looked: Sequence[Looked]) -> Orders:
        """Give the orders with these decisions, in place of earlier ones over the same images."""
        again = {one.digest for one in looked}
        kept = tuple(one for one in self.looked if one.digest not in again)
        return replace(self, looked=(*kept, *looked))

    def over(self, digest: str) -> Looked | None:
        """Give the decision over the image with this digest, if there is one."""
        return next((one for one in self.looked if one.digest == digest), None)

    def details(self) -> dict[str, int | str]:
        """Give what a step's line of the audit trail says of them."""
        details: dict[str, int | str] = {}
        if self.looked:
            details["images_decided"] = len(self.looked)
        if self.errand is not Errand.ANONYMIZE:
            details["errand"] = self.errand.value
        if self.bundle:
            details["bundle"] = self.bundle
        if self.strength != 1:
            details["strength"] = f"{self.strength:g}"
        return details


#: Nobody has decided anything.
NONE: Final = Orders()


def numbers_of(boxes: Sequence[Box]) -> list[int]:
    """Give the numbers of boxes, one after the other."""
    return [side for box in boxes for side in box]


def boxes_of(numbers: Sequence[int]) -> tuple[Box, ...]:
    """Give the boxes whose ``numbers_of`` these are."""
    return tuple(
        (numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3])
        for at in range(0, len(numbers), 4)
    )
