"""Gives a ledger to another Orthanc."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import URL, func, make_url, select
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session

from prichexy_plugin.chain import GENESIS, Head
from prichexy_plugin.closed_ledger import Unusable, check_let_go, opened
from prichexy_plugin.ownership import CURSOR, give_free
from prichexy_plugin.raw_lines import read_heads
from prichexy_plugin.schema import FactRow, StudyRow

__all__ = ["Given", "give_away"]


@dataclass(frozen=True, slots=True)
class Given:
    """A ledger that the next Orthanc goes on with: its studies, and where its trail ends."""

    studies: int
    head: Head


def give_away(
    place: str,
    password: SecretStr | None = None,
    *,
    keep_place: bool = False,
    even_if_open: bool = False,
) -> Given:
    """Have the ledger at ``place``, a file or a URL, go on with the Orthanc that opens it next.

    That one's changes are read from their beginning, unless ``keep_place``. It is told in the audit
    trail by the plugin that takes the ledger over. Raises Unusable, and has then altered nothing,
    not even tables of an older version: when there is no ledger, and, without ``even_if_open``,
    when the last line does not say that a plugin let go of it.
    """
    admit = partial(check_let_go, even_if_open=even_if_open)
    with opened(_url_of(place), password, make=False, admit=admit) as engine:
        try:
            with Session(engine) as session, session.begin():
                connection = session.connection()
                check_let_go(connection, even_if_open=even_if_open)
                give_free(session)
                read_upto = session.get(FactRow, CURSOR)
                if read_upto is not None and not keep_place:
                    read_upto.number = 0
                studies = session.scalar(select(func.count()).select_from(StudyRow)) or 0
                return Given(studies, read_heads(connection)[1] or Head(0, GENESIS))
        except SQLAlchemyError as error:
            raise Unusable(f"The ledger cannot be written ({type(error).__name__}).") from None


def _url_of(place: str) -> str:
    try:
        url = make_url(place) if "://" in place else URL.create("sqlite", database=place)
    except ArgumentError:
        raise Unusable("That is neither a file nor an SQLAlchemy URL.") from None
    if url.get_backend_name() != "sqlite":
        return place
    file = Path(url.database or "").expanduser().resolve()
    if not file.is_file():
        raise Unusable(f"There is no ledger at {file}.")
    return f"sqlite:///{file}"
