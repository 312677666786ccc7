"""A folder for researchers as export target: 16-bit PNG files, and a table of all images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prichexy_worker.contract import Reason
from prichexy_worker.errors import Retryable
from prichexy_worker.export.image_table import HeldTable, ImageTable, Row
from prichexy_worker.export.research_image import COLUMNS, is_picture_of, picture_of, row_of
from prichexy_worker.export.study_folders import Ours, StudyFolders
from prichexy_worker.export.uids import is_uid
from prichexy_worker.ports import Anonymized, Check, InstanceName, unhindered
from prichexy_worker.sent import Image, Sent

__all__ = ["PngFolderExport"]


class PngFolderExport:
    """An ExportTarget that writes ``<study>/<series>/<instance>.png`` and ``images.csv``.

    The table is what counts: a study is in it whole or not at all, and it gets in when every target
    of the study holds it. Until then its PNG files lie beside, hidden; files and rows are swapped
    in one step under the table's lock. A file that the table names is there and whole, for a study
    leaves the table before its files go. What a worker leaves that is killed within that step is
    told in ``image_table``.

    Whoever alters what readers see does it under that lock, from the first look to the last change,
    and asks there whether it may.
    """

    recalls = True
    proves = True

    def __init__(self, folder: Path, marker: str | None = None) -> None:
        self._folder = folder
        self._files = StudyFolders(folder, ".png", marker)
        self._staged = self._files.hidden()
        self._table = ImageTable(folder, COLUMNS)

    def check(self) -> None:
        """Return when the folder may be written to, and a table in it is one of ours."""
        self._files.check()
        self._table.check()

    def store(self, instance: Anonymized) -> None:
        """Write the PNG, hidden."""
        self._staged.write(instance, picture_of(instance.content))

    def holds(self, instance: InstanceName) -> bool:
        """Look for the PNG in its place."""
        return self._files.holds(instance)

    def differences(self, kept: Sequence[Anonymized]) -> Iterator[tuple[str, ...]]:
        """Read each PNG back, where it lies by now, and compare its values with the released."""
        for instance in kept:
            png = self._staged.read(instance)
            if png is None:
                png = self._files.read(instance)
            if png is None:
                yield ("missing",)
            else:
                yield () if is_picture_of(png, instance.content) else ("pixels",)

    def withdraw(self, instance: InstanceName) -> None:
        """Take the image out of the table, then remove its PNG, also a hidden one.

        The PNG of another patient's image under the same UIDs stays where the table names it.
        """
        self._files.check()
        file = self._name(instance)
        with self._table.held() as table:
            rows = table.rows(instance.study_uid)
            stay = [
                row
                for row in rows
                if row["file"] != file or row["patient_id"] != instance.patient_id
            ]
            if len(stay) < len(rows):
                _leave(table, instance.study_uid, stay)
            if all(row["file"] != file for row in stay):
                self._files.remove(instance)
            self._staged.remove(instance)

    def withdraw_study(self, study_uid: str, sent: Sent, may_go_on: Check = unhindered) -> bool:
        """Take the images of ``sent`` out of the table, then remove their files.

        Where the study has no others, its folder goes in one step. Hidden files go, too.
        """
        self._files.check()
        with self._table.held() as table:
            rows = [(row, _image_of(row)) for row in table.rows(study_uid)]
            mine = sent.among([image for _row, image in rows])
            others = [row for row, image in rows if image not in mine]
            may_go_on()
            _leave(table, study_uid, others)
            for files in (self._files, self._staged):
                files.remove_study(study_uid, _unnamed(others, sent), may_go_on)
        return not any(sent.may_concern(_image_of(row)) for row in others)

    def withdraw_others(
        self, kept: Sequence[Anonymized], sent: Sent, may_go_on: Check = unhindered
    ) -> None:
        """Put the study into its place and the table, then remove the files that it does not name.

        With them goes what killed workers left hidden.
        """
        self._files.check()
        study, patient = kept[0].study_uid, kept[0].patient_id
        new = [row_of(instance.content, self._name(instance)) for instance in kept]
        files = {row["file"] for row in new}

        def swap() -> None:
            # What another worker brought or removed under these UIDs since it was compared.
            if differing := next(filter(None, self.differences(kept)), None):
                raise Retryable(Reason.READ_BACK_DIFFERS, ", ".join(differing))
            self._staged.release(kept, self._files)

        with self._table.held() as table:
            held = [(row, _image_of(row)) for row in table.rows(study)]
            mine = sent.among([image for _row, image in held])
            # Another patient's, should two have studies of one UID, and another gateway's.
            others: list[Row] = [
                row
                for row, image in held
                if row["file"] not in files and (row["patient_id"] != patient or image not in mine)
            ]
            rows = sorted([*others, *new], key=lambda row: row["file"])
            unnamed = _unnamed(rows, sent)
            self._staged.remove_from(study, unnamed, may_go_on)
            may_go_on()
            table.put(study, rows, swap)
            self._files.remove_from(study, unnamed, may_go_on)

    def close(self) -> None:
        """Nothing is kept open."""

    def _name(self, instance: InstanceName) -> str:
        return str(self._files.path(instance).relative_to(self._folder))


def _leave(table: HeldTable, study_uid: str, rows: Sequence[Row]) -> None:
    """Leave the table no more of the study than these of its rows."""
    if rows:
        table.put(study_uid, rows)
    else:
        table.remove(study_uid)


def _unnamed(rows: Sequence[Row], sent: Sent) -> Ours:
    """Give the files of what was sent and is not named by ``rows``, in its place or hidden."""
    named = {(row["series_uid"], row["sop_uid"]) for row in rows}
    return Ours(
        lambda path: (
            _is_image(path) and sent.names(path.stem) and (path.parent.name, path.stem) not in named
        ),
        sent.names,
    )


def _is_image(path: Path) -> bool:
    return path.suffix == ".png" and is_uid(path.stem)


def _image_of(row: Mapping[str, str]) -> Image:
    return Image(row["patient_id"], row["study_uid"], row["sop_uid"])
