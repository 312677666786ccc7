"""What the database itself refuses, so that the audit trail stays append-only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from prichexy_plugin.schema import ChainRow, EventRow

__all__ = ["set_guards"]


@dataclass(frozen=True, slots=True)
class _Guard:
    """Has the database itself refuse ``when`` of ``table``, under the trigger's ``name``.

    ``only`` is the condition under which it is refused, about OLD and NEW, where it is not always;
    else the row ``passes``, as PostgreSQL calls it.
    """

    table: str
    name: str
    when: str
    only: str = ""
    passes: str = "NULL"

    def statements(self, dialect: str) -> tuple[str, ...]:
        """Give what makes the trigger there; nothing where nobody can do ``when``."""
        refusal = "the audit trail is append-only"
        where = f"{self.when} ON {self.table}"
        each = "STATEMENT" if "TRUNCATE" in self.when else "ROW"
        if dialect == "sqlite":
            if each == "STATEMENT":
                return ()  # it knows no TRUNCATE
            condition = f"WHEN {self.only} " if self.only else ""
            refused = f"BEGIN SELECT RAISE(ABORT, '{refusal}'); END"
            return (f"CREATE TRIGGER {self.name} {where} {condition}{refused}",)
        raised = f"RAISE EXCEPTION '{refusal}';"
        passed = f"IF {self.only} THEN {raised} END IF; RETURN {self.passes};"
        body = passed if self.only else raised
        language = "RETURNS trigger LANGUAGE plpgsql"
        return (
            f"CREATE OR REPLACE FUNCTION {self.name}() {language} AS $$ BEGIN {body} END $$",
            f"CREATE TRIGGER {self.name} {where} FOR EACH {each} EXECUTE FUNCTION {self.name}()",
        )


_LINES: Final = EventRow.__tablename__
_ENDS: Final = ChainRow.__tablename__
_CHECKPOINT_AT: Final = "COALESCE((SELECT number FROM audit_chain WHERE name = 'checkpoint'), 0)"
_HEAD_AT: Final = "COALESCE((SELECT number FROM audit_chain WHERE name = 'head'), 0)"
_IS_THERE: Final = "EXISTS (SELECT 1 FROM events WHERE number = NEW.number)"
_GUARDS: Final = (
    # Who adds lines has put the head there before. A row that is there is in the way of no other:
    # SQLite's INSERT OR REPLACE would take it out without a word.
    _Guard(
        _LINES,
        "events_are_only_appended",
        "BEFORE INSERT",
        f"NEW.number <= {_CHECKPOINT_AT} OR NEW.number > {_HEAD_AT} OR {_IS_THERE}",
        "NEW",
    ),
    _Guard(_LINES, "events_are_not_altered", "BEFORE UPDATE"),
    # Those up to the checkpoint may be deleted, and it never goes back.
    _Guard(
        _LINES, "events_are_not_deleted", "BEFORE DELETE", f"OLD.number > {_CHECKPOINT_AT}", "OLD"
    ),
    _Guard(_LINES, "events_are_not_emptied", "BEFORE TRUNCATE"),
    _Guard(
        _ENDS,
        "audit_chain_is_not_replaced",
        "BEFORE INSERT",
        "EXISTS (SELECT 1 FROM audit_chain WHERE name = NEW.name)",
        "NEW",
    ),
    _Guard(
        _ENDS,
        "audit_chain_goes_forward",
        "BEFORE UPDATE",
        "NEW.number < OLD.number OR NEW.name <> OLD.name",
        "NEW",
    ),
    _Guard(_ENDS, "audit_chain_stays", "BEFORE DELETE"),
    _Guard(_ENDS, "audit_chain_is_not_emptied", "BEFORE TRUNCATE"),
)
_TRIGGERS: Final = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
    "postgresql": "SELECT tgname FROM pg_trigger "
    "WHERE tgrelid IN (to_regclass('events'), to_regclass('audit_chain'))",
}


def set_guards(connection: Connection) -> None:
    """Have the database keep the audit trail append-only, where it does not yet.

    A guard alters nothing that is kept, so a ledger of before gets it without a new schema, and
    one that somebody dropped is back at the next start.
    """
    dialect = connection.dialect.name
    there = set(connection.exec_driver_sql(_TRIGGERS[dialect]).scalars())
    for guard in _GUARDS:
        if guard.name not in there:
            for statement in guard.statements(dialect):
                connection.exec_driver_sql(statement)
