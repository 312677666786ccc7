"""A folder for researchers as export target: 16-bit PNG files, and a table of all images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prichexy_worker.export.image_table import ImageTable, Row
from prichexy_worker.export.research_image import COLUMNS, is_picture_of, picture_of, row_of
from prichexy_worker.export.study_folders import Ours, StudyFolders
from prichexy_worker.export.uids import is_uid
from prichexy_worker.ports import Anonymized, Check, InstanceName, unhindered
from prichexy_worker.sent import Image, Sent

__all__ = ["PngFolderExport"]


class PngFolderExport:
    """An ExportTarget that writes ``<study>/<series>/<instance>.png`` and ``images.csv``.

    The table is what counts: a study is in it whole or not at all, and it gets in when every target
    of the study holds it. A file that the table names is there and whole, for a study leaves the
    table before its files go.
    """

    recalls = True
    proves = True

    def __init__(self, folder: Path, marker: str | None = None) -> None:
        self._folder = folder
        self._files = StudyFolders(folder, ".png", marker)
        self._table = ImageTable(folder, COLUMNS)

    def check(self) -> None:
        """Return when the folder may be written to, and a table in it is one of ours."""
        self._files.check()
        self._table.check()

    def store(self, instance: Anonymized) -> None:
        """Write the PNG; the table does not name it yet.

        Another patient's image under the same UIDs leaves the table before its PNG is replaced.
        """
        picture = picture_of(instance.content)
        self._files.check()
        rows = self._table.rows(instance.study_uid)
        stay = [row for row in rows if not _replaces(instance, row)]
        if len(stay) < len(rows):
            self._table.put(instance.study_uid, stay)
        self._files.write(instance, picture)

    def holds(self, instance: InstanceName) -> bool:
        """Look for the PNG."""
        return self._files.holds(instance)

    def differences(self, kept: Sequence[Anonymized]) -> Iterator[tuple[str, ...]]:
        """Read each PNG back and compare its values with the released ones."""
        for instance in kept:
            png = self._files.read(instance)
            if png is None:
                yield ("missing",)
            else:
                yield () if is_picture_of(png, instance.content) else ("pixels",)

    def withdraw(self, instance: InstanceName) -> None:
        """Remove the PNG, which was never in the table, and the folders that it leaves empty."""
        self._files.remove(instance)

    def withdraw_study(self, study_uid: str, sent: Sent, may_go_on: Check = unhindered) -> bool:
        """Take the images of ``sent`` out of the table, then remove their files.

        Where the study has no others, its folder goes in one step.
        """
        self._files.check()
        rows = [(row, _image_of(row)) for row in self._table.rows(study_uid)]
        mine = sent.among([image for _row, image in rows])
        others = [row for row, image in rows if image not in mine]
        may_go_on()
        if others:
            self._table.put(study_uid, others)
        else:
            self._table.remove(study_uid)
        self._files.remove_study(study_uid, self._unnamed(others, sent), may_go_on)
        return not any(sent.may_concern(_image_of(row)) for row in others)

    def withdraw_others(
        self, kept: Sequence[Anonymized], sent: Sent, may_go_on: Check = unhindered
    ) -> None:
        """Put the study into the table, then remove the PNG files that it does not name."""
        self._files.check()
        study, patient = kept[0].study_uid, kept[0].patient_id
        new = [row_of(instance.content, self._name(instance)) for instance in kept]
        files = {row["file"] for row in new}
        held = [(row, _image_of(row)) for row in self._table.rows(study)]
        mine = sent.among([image for _row, image in held])
        # Another patient's, should two have studies of one UID, and another gateway's.
        others: list[Row] = [
            row
            for row, image in held
            if row["file"] not in files and (row["patient_id"] != patient or image not in mine)
        ]
        rows = sorted([*others, *new], key=lambda row: row["file"])
        may_go_on()
        self._table.put(study, rows)
        self._files.remove_from(study, self._unnamed(rows, sent), may_go_on)

    def _unnamed(self, rows: Sequence[Row], sent: Sent) -> Ours:
        """Give the files of what was sent and is not named by ``rows``."""
        named = {self._folder / row["file"] for row in rows}
        return Ours(
            lambda path: _is_image(path) and sent.names(path.stem) and path not in named,
            sent.names,
        )

    def close(self) -> None:
        """Nothing is kept open."""

    def _name(self, instance: InstanceName) -> str:
        return str(self._files.path(instance).relative_to(self._folder))


def _is_image(path: Path) -> bool:
    return path.suffix == ".png" and is_uid(path.stem)


def _image_of(row: Mapping[str, str]) -> Image:
    return Image(row["patient_id"], row["study_uid"], row["sop_uid"])


def _replaces(instance: InstanceName, row: Mapping[str, str]) -> bool:
    """Say whether the instance's PNG takes the place of another patient's, which the row is of."""
    names = row["series_uid"], row["sop_uid"]
    same = names == (instance.series_uid, instance.sop_uid)
    return same and row["patient_id"] != instance.patient_id
