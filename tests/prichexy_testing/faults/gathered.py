"""What a gateway at rest is judged by, read from where it is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import create_engine, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from prichexy_plugin.schema import EventRow, StudyRow
from prichexy_testing.faults.invariants import AuditLine, LedgerRow
from prichexy_testing.servers import wait_until
from prichexy_worker.contract import State

__all__ = ["audit_lines", "ledger_rows", "peer_images", "telling_files"]


def ledger_rows(ledger: Path) -> tuple[LedgerRow, ...]:
    """Read every study of the ledger's file."""
    return tuple(
        LedgerRow(
            study_id=row.study_id,
            job_id=row.job_id,
            state=State(row.state),
            revision=row.revision,
            attempts=row.attempts,
            reason=row.reason,
            instances=row.instances,
            looked=row.look_at is None,
        )
        for row in _read(ledger, StudyRow)
    )


def audit_lines(ledger: Path) -> tuple[AuditLine, ...]:
    """Read the steps of studies out of the audit trail; its other lines are of no study's state."""
    return tuple(
        AuditLine(
            number=row.number,
            job_id=row.job_id,
            at=row.at,
            before=None if row.from_state is None else State(row.from_state),
            after=State(row.to_state),
            actor=row.actor,
            reason=row.reason,
        )
        for row in _read(ledger, EventRow)
        if row.job_id is not None and row.to_state is not None
    )


def _read(ledger: Path, kind: Any) -> Iterator[Any]:
    engine = create_engine(f"sqlite:///file:{ledger}?mode=ro&uri=true")
    found: list[Any] = []

    def is_read() -> bool:
        """Not before its tables are made, nor while its disk has no room for a reader's lock."""
        try:
            with Session(engine) as session:
                found[:] = session.scalars(select(kind)).all()
        except OperationalError:
            return False
        return True

    try:
        wait_until(is_read, what="the ledger can be read")
    finally:
        engine.dispose()
    return iter(found)


def peer_images(client: httpx.Client) -> dict[str, tuple[str, ...]]:
    """Give the SOPInstanceUIDs of each StudyInstanceUID that an Orthanc holds."""
    uid_of = {
        study["ID"]: study["MainDicomTags"]["StudyInstanceUID"]
        for study in client.get("/studies?expand").raise_for_status().json()
    }
    study_of = {
        series["ID"]: uid_of[series["ParentStudy"]]
        for series in client.get("/series?expand").raise_for_status().json()
    }
    held: dict[str, list[str]] = {uid: [] for uid in uid_of.values()}
    for instance in client.get("/instances?expand").raise_for_status().json():
        held[study_of[instance["ParentSeries"]]].append(instance["MainDicomTags"]["SOPInstanceUID"])
    return {uid: tuple(sorted(images)) for uid, images in held.items()}


def telling_files(folders: Iterable[Path], secrets: Iterable[str]) -> tuple[str, ...]:
    """Name the files below ``folders`` that hold one of ``secrets``, a DICOM object or a core."""
    needles = [b"DICM", b"\x7fELF", *(secret.encode() for secret in secrets)]
    return tuple(
        f"{folder.name}/{path.relative_to(folder)}"
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(needle in path.read_bytes() for needle in needles)
    )
