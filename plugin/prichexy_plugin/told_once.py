"""What happened outside the plugin and belongs in the trail: each line of it once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy.orm import Session

from prichexy_plugin.chain import Deed
from prichexy_plugin.model_changes import ModelChange
from prichexy_plugin.outside_deeds import OutsideDeed
from prichexy_plugin.schema import FactRow
from prichexy_plugin.trail import Entry, Trail

__all__ = ["ToldOnce"]

#: So begin the names of the facts that say which lines of model histories the trail has.
_MODEL_CHANGE: Final = "model "
#: The same of what else the command line did.
_DEED: Final = "deed "
#: Digits of a change's digest that stand in such a name.
_TELLS_CHANGES_APART: Final = 26


class ToldOnce(Trail):
    """Writes down what others tell; any thread. Every method raises SQLAlchemyError."""

    def note_model_changes(self, changes: Sequence[ModelChange], actor: str) -> int:
        """Write down what ``actor`` tells of a model store's history, each of its lines once.

        Gives how many lines were new.
        """
        told = 0
        with self._writing() as session:
            now = self._clock()
            for change in sorted(changes, key=lambda one: one.place):
                name = f"{_MODEL_CHANGE}{change.digest[:_TELLS_CHANGES_APART]}"
                entry = Entry(Deed.MODEL_CHANGED, now, actor, details=change.details())
                told += self._tell_once(session, name, change.place, entry)
        return told

    def note_deeds(self, deeds: Sequence[OutsideDeed], actor: str) -> int:
        """Write down what ``actor`` tells of the command line's deeds, each once; as above."""
        told = 0
        with self._writing() as session:
            now = self._clock()
            for deed in deeds:
                name = f"{_DEED}{deed.digest[:_TELLS_CHANGES_APART]}"
                entry = Entry(Deed.ACTION, now, actor, details=deed.details())
                told += self._tell_once(session, name, deed.studies, entry)
        return told

    def _tell_once(self, session: Session, name: str, number: int, entry: Entry) -> bool:
        """Write a line unless the fact of this name is known; say whether it was not."""
        if session.get(FactRow, name) is not None:
            return False
        session.add(FactRow(name=name, number=number))
        session.flush()
        self._tell(session, entry)
        return True
